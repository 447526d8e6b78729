"""A Redis 8 for tests of vector sets: Debian trixie's packages, unpacked and not installed.

`python -m support.redis8` (from tests/) fetches them with apt into `.parley/redis8`, by a
state folder of its own, and they run with their own loader and libraries, so that the
machine's release does not matter. Tests only use what is there already or can be fetched
in time; where it cannot be had, `redis8_url` skips with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley_devstack import stores
from parley_devstack.paths import checkout
from parley_devstack.ports import LOOPBACK
from support.servers import Server, running

FETCH_SECONDS = 240
_SUITE = "trixie"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The server, and what it links to that a machine of another release may lack.
_PACKAGES = ("redis-server", "redis-tools", "libc6")
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"


class Redis8Unavailable(RuntimeError):
    """No Redis 8 can be had here; the message says why."""


def folder() -> Path:
    """Where the packages are unpacked."""
    return checkout().home / "redis8"


def fetch(target: Path) -> None:
    """Fetch and unpack the packages. Raises Redis8Unavailable."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Redis8Unavailable("the packages are fetched for Linux on x86_64 alone")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Redis8Unavailable(f"there is no {tool} here")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="redis8-") as name:
        work = Path(name)
        options = _private_apt(work)
        _run(["apt-get", *options, "update"], work)
        _run(["apt-get", *options, "install", "--download-only", "-y", *_PACKAGES], work)
        unpacked = work / "root"
        for package in sorted((work / "cache/archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(unpacked)], work)
        if not (unpacked / _LOADER).exists() or not (unpacked / "usr/bin/redis-server").exists():
            raise Redis8Unavailable("the packages do not hold a server and its loader")
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)


def _private_apt(work: Path) -> list[str]:
    """Options that keep apt away from the machine's own lists, cache and status."""
    for part in ("lists/partial", "cache/archives/partial", "parts"):
        (work / part).mkdir(parents=True)
    (work / "status").touch()
    signed = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
    mirror = os.environ.get("PARLEY_DEBIAN_MIRROR") or _own_mirror()
    (work / "sources.list").write_text(f"deb{signed} {mirror} {_SUITE} main\n", "utf-8")
    values = {
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": work / "parts",
        "APT::Install-Recommends": "false",
        "APT::Get::List-Cleanup": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    return [part for key, value in values.items() for part in ("-o", f"{key}={value}")]


def _own_mirror() -> str:
    """Return the Debian mirror that this machine's own apt uses."""
    folder = Path("/etc/apt")
    for source in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))]:
        text = source.read_text("utf-8", "replace") if source.is_file() else ""
        found = re.search(r"^(?:deb |URIs:).*?(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found[1]
    raise Redis8Unavailable("apt has no Debian mirror; name one in PARLEY_DEBIAN_MIRROR")


def _run(command: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Redis8Unavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise Redis8Unavailable(f"{command[0]} failed: {(done.stderr or done.stdout)[-500:]}")


def server_command(port: int, data: Path) -> list[str]:
    """The command that runs the unpacked server."""
    root = folder()
    libraries = ":".join(
        str(root / part) for part in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
    )
    return [
        *(str(root / _LOADER), "--library-path", libraries, str(root / "usr/bin/redis-server")),
        *("--bind", LOOPBACK, "--port", str(port), "--dir", str(data)),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    ]


class Redis8Server(Server):
    """A Redis 8 of one's own."""

    def __init__(self, data: Path) -> None:
        super().__init__(
            "redis8",
            lambda port: server_command(port, data),
            lambda port: stores.answers_ping(LOOPBACK, port),
            data,
        )

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://{self.host}:{self.port}/0"


@pytest.fixture(scope="session")
def redis8_url() -> Iterator[str]:
    """The URL of a real Redis 8, which has vector sets; skips where none can be had."""
    if url := os.environ.get("REDIS8_URL"):
        yield url
        return
    if not (folder() / _LOADER).exists():
        try:
            fetch(folder())
        except Redis8Unavailable as why:
            pytest.skip(f"no Redis 8: {why}")
    with (
        tempfile.TemporaryDirectory(prefix="parley-redis8-") as data,
        running(Redis8Server(Path(data))) as server,
    ):
        yield server.url


if __name__ == "__main__":
    fetch(folder())
    sys.stdout.write(f"{folder()}\n")
