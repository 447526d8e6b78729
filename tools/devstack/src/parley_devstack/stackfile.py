"""`.parley/stack.json`: the processes of a running stack, for tests and tools.

{"version": 1, "pid": 41, "engine": "sim", "urls": ["http://127.0.0.1:8080"],
 "data": "…", "processes": [{"name": "session-1", "kind": "session", "pid": 57,
 "state": "ready", "grpc": "127.0.0.1:20001", "http": "", "admin": "127.0.0.1:20002",
 "log": "…/session-1.log", "command": ["python", "-m", "parley_session"]}]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from parley_devstack.process import Process

VERSION = 1


def write(path: Path, processes: Iterable[Process], **about: object) -> None:
    """Replaces the file in one step: a reader sees the old one or the new one, whole."""
    listed = [
        {
            "name": process.name,
            "kind": process.plan.kind,
            "pid": process.pid,
            "state": process.state.value,
            "grpc": process.plan.grpc,
            "http": process.plan.http,
            "admin": process.plan.admin,
            "log": str(process.plan.log),
            "command": list(process.plan.command),
        }
        for process in processes
    ]
    content = {"version": VERSION, "pid": os.getpid(), **about, "processes": listed}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Returns the content, or None where there is no such file or it is not whole."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("version") == VERSION else None


def owner(path: Path) -> int | None:
    """Returns the pid of the devstack that wrote the file, if it still runs."""
    content = read(path)
    pid = content.get("pid") if content else None
    if not isinstance(pid, int) or not psutil.pid_exists(pid):
        return None
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        return None
    return pid if started <= path.stat().st_mtime else None
