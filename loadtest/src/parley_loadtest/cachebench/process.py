"""A measured process, and the servers that it needs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from parley_devstack import stores
from parley_devstack.ports import LOOPBACK, free_port

LONGEST_SECONDS = 3_600.0
_START_SECONDS = 30.0


class Failed(RuntimeError):
    """A measured process or a server has ended; the message ends with what it said."""


class Subject:
    """A process that obeys `subjects.child`."""

    def __init__(self, command: Sequence[str | Path], log: Path, path: str = "") -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, **({"PYTHONPATH": path} if path else {})},
            )

    def do(self, what: str, **how: object) -> dict[str, Any]:
        """Have one thing done, and wait for it. Raises Failed."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None  # noqa: S101, PT018 - both are pipes
        watchdog = threading.Timer(LONGEST_SECONDS, self._process.kill)
        watchdog.start()
        try:
            sink.write(json.dumps({"do": what, **how}) + "\n")
            sink.flush()
            line = source.readline()
        except OSError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            raise Failed(f"{what}: {_tail(self._log)}")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def memory_bytes(self) -> int:
        """What the process holds now."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def server(command: list[str], folder: Path, name: str) -> Iterator[str]:
    """Run a Redis-like server while the block runs, with `PORT` in its command; give its URL.

    Raises:
        Failed: it does not start.
    """
    port = free_port()
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [str(port) if part == "PORT" else part for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while not stores.answers_ping(LOOPBACK, port):
            if process.poll() is not None or time.monotonic() > until:
                raise Failed(f"{name} did not start: {_tail(log)}")
            time.sleep(0.05)
        yield f"redis://{LOOPBACK}:{port}/0"
    finally:
        process.kill()
        process.wait()


def valkey(data: Path) -> list[str]:
    """The embedded server's command."""
    return [
        "PORT" if part == "0" else part
        for part in stores.valkey_command(LOOPBACK, 0, data, persistent=False)
    ]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for vectors, data and logs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="parley-cachebench-") as name:
        yield Path(name)


def _tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-1500:]
