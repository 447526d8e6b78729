"""What this machine must have, checked before anything is downloaded.

Only the standard library: it runs on the bare Python, before any environment exists.
Each check returns sentences, none when all is well; facts come in as a `Machine`, so that
the rules can be tried without having the machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
MIN_PYTHON = (3, 11)
MAX_PYTHON = (3, 14)  # the newest one that the locked engine has wheels for
MIN_GLIBC = (2, 35)
# Seen: the development environment 0.7 GB, the engine's 5.8, its downloads as much again
# in uv's cache where that is on another file system, the model 0.4.
DISK_GIB = {"vllm": 12.0, "sim": 2.0, "openai": 2.0}
MEMORY_GIB = {"vllm": 6.0, "sim": 1.5, "openai": 1.5}


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found here. Sizes in GiB; `glibc` () where there is none."""

    system: str
    arch: str
    python: tuple[int, int]
    glibc: tuple[int, ...]
    disk_free: float
    memory_available: float
    has_gpu: bool
    has_venv: bool
    has_avx2: bool


def look(root: Path) -> Machine:
    """Looks at this machine; `root` is the folder that everything is put into."""
    return Machine(
        system=platform.system(),
        arch=platform.machine().lower(),
        python=(sys.version_info[0], sys.version_info[1]),
        glibc=_glibc(),
        disk_free=shutil.disk_usage(root).free / GIB,
        memory_available=_memory_available(),
        has_gpu=has_gpu(),
        has_venv=_has_module("venv") and _has_module("ensurepip"),
        has_avx2=_has_avx2(),
    )


def has_gpu() -> bool:
    """Says whether an NVIDIA GPU can be used here."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def check_machine(machine: Machine, engine: str, *, installed: bool = False) -> list[str]:
    """Returns what is lacking, a sentence each that says what to do.

    `installed`: the environments are there already, so disk is not asked for again.
    """
    problems = [
        _platform(machine, engine),
        _python(machine, engine),
        _c_library(machine),
        _venv(machine),
        _memory(machine, engine),
        None if installed else _disk(machine, engine),
    ]
    return [problem for problem in problems if problem]


def check_ports(wanted: Iterable[int], host: str = "127.0.0.1") -> list[str]:
    """Returns a sentence for each port that somebody listens on."""
    return [
        f"Port {port} is in use{_by(port)}: stop that, or choose another one with PORT={port + 10}."
        for port in wanted
        if port and not _bindable(port, host)
    ]


def _platform(machine: Machine, engine: str) -> str | None:
    if machine.system == "Linux" and machine.arch in {"x86_64", "amd64"}:
        if engine == "vllm" and not machine.has_gpu and not machine.has_avx2:
            return "vLLM on CPU needs a processor with AVX2: use ENGINE=sim here."
        return None
    if machine.system == "Darwin" or (machine.system == "Linux" and machine.arch == "aarch64"):
        where = "macOS" if machine.system == "Darwin" else "Linux on arm64"
        if engine != "vllm":
            return None
        return (
            f"The vLLM engine is locked for Linux on x86-64 and does not run on {where}: "
            "use ENGINE=sim, which is expected to work there but is not tested."
        )
    return (
        f"{machine.system} on {machine.arch} is not supported: use Linux on x86-64 "
        "(a virtual machine or WSL 2 will do)."
    )


def _python(machine: Machine, engine: str) -> str | None:
    have = ".".join(map(str, machine.python))
    if machine.python < MIN_PYTHON:
        return f"Python {have} is too old: install 3.11 or newer, or name one: PYTHON=python3.12."
    if machine.python > MAX_PYTHON and engine == "vllm":
        return (
            f"vLLM has no wheels for Python {have}: name a Python from 3.11 to 3.14 "
            "(PYTHON=python3.13), or use ENGINE=sim."
        )
    return None


def _c_library(machine: Machine) -> str | None:
    if machine.system != "Linux" or machine.glibc >= MIN_GLIBC:
        return None
    needed = ".".join(map(str, MIN_GLIBC))
    if not machine.glibc:
        return (
            f"The wheels need glibc {needed} or newer, and this system has another C library: "
            "use a Debian 12, Ubuntu 22.04, RHEL 10 or newer system."
        )
    have = ".".join(map(str, machine.glibc))
    return f"glibc {have} is too old: use a system with {needed} or newer (Debian 12)."


def _venv(machine: Machine) -> str | None:
    if machine.has_venv:
        return None
    version = ".".join(map(str, machine.python))
    return f"This Python has no venv module: install it (Debian: apt install python{version}-venv)."


def _memory(machine: Machine, engine: str) -> str | None:
    need = MEMORY_GIB[engine]
    if machine.memory_available >= need:
        return None
    other = " or use ENGINE=sim" if engine == "vllm" else ""
    return (
        f"{machine.memory_available:.1f} GiB of memory are free and ENGINE={engine} needs "
        f"{need:g}: close something{other}."
    )


def _disk(machine: Machine, engine: str) -> str | None:
    need = DISK_GIB[engine]
    if machine.disk_free >= need:
        return None
    other = ", or use ENGINE=sim (2 GiB)" if engine == "vllm" else ""
    return (
        f"{machine.disk_free:.1f} GiB of disk are free and ENGINE={engine} needs {need:g}: "
        f"make room{other}."
    )


def _glibc() -> tuple[int, ...]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError, AttributeError):
        return ()
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


def _memory_available() -> float:
    limits = [_meminfo(), _cgroup_room()]
    return min((limit for limit in limits if limit is not None), default=float("inf"))


def _meminfo() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / GIB if found else None


def _cgroup_room() -> float | None:
    base = Path("/sys/fs/cgroup")
    try:
        limit = (base / "memory.max").read_text(encoding="ascii").strip()
        used = (base / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if limit == "max" else (int(limit) - int(used)) / GIB


def _has_avx2() -> bool:
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True


def _has_module(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _bindable(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _by(port: int) -> str:
    try:
        from parley_devstack.ports import holder
    except ImportError:  # psutil is not there before the environment is
        return ""
    return f" by {holder(port)}"
