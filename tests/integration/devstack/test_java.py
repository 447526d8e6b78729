from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parley_devstack.errors import SetupError
from parley_devstack.java import Jar, fetch_jars
from parley_devstack.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

CONTENT = b"a jar"
JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


class Mirror(ThreadingHTTPServer):
    """A Maven repository with one jar, that counts how often it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.served = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/maven2"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        if self.path != "/maven2/org/example/thing/1.0/thing-1.0.jar":
            self.send_error(404)
            return
        self.server.served += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_jar_is_fetched_once(mirror: Mirror, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        (path,) = fetch_jars(tmp_path, (JAR,), repository_url=mirror.url, on_progress=said.append)
        assert path.read_bytes() == CONTENT
    assert mirror.served == 1
    assert said == ["thing-1.0.jar (1/1)"]


def test_processes_that_start_together_fetch_it_once(mirror: Mirror, tmp_path: Path) -> None:
    threads = [
        threading.Thread(
            target=fetch_jars, args=(tmp_path, (JAR,)), kwargs={"repository_url": mirror.url}
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mirror.served == 1


def test_half_a_jar_is_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / JAR.filename).write_bytes(CONTENT[:2])
    (path,) = fetch_jars(tmp_path, (JAR,), repository_url=mirror.url)
    assert path.read_bytes() == CONTENT


def test_a_jar_that_is_not_the_pinned_one_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    other = Jar(JAR.group, JAR.artifact, JAR.version, "0" * 64)
    with pytest.raises(SetupError, match="SHA-256 differs"):
        fetch_jars(tmp_path, (other,), repository_url=mirror.url)
    assert not list(tmp_path.glob("*.jar"))


# jgo leaves the connection of a download that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("artifact", ["absent", "thing"])
def test_no_repository_is_told_with_what_to_do(
    mirror: Mirror, tmp_path: Path, artifact: str
) -> None:
    url = mirror.url if artifact == "absent" else f"http://127.0.0.1:{free_port()}/maven2"
    with pytest.raises(SetupError) as caught:
        fetch_jars(tmp_path, (Jar("org.example", artifact, "1.0", ""),), repository_url=url)
    assert "could not be fetched" in caught.value.what
    assert "MONGODB_URI" in caught.value.advice
