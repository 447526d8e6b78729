"""Memory of this machine, or of the container that this process is in."""

from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")


def available_bytes(root: Path = _ROOT) -> int | None:
    """Bytes that can still be had: the least of what the machine and the container leave.

    None where neither says.
    """
    left = [_machine(root / "proc/meminfo"), *map(_container, _controllers(root))]
    return min((found for found in left if found is not None), default=None)


def _machine(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _controllers(root: Path) -> list[tuple[Path, Path, Path]]:
    """Files of the limit, the usage and the figures: of version 2 of control groups, and 1."""
    two, one = root / "sys/fs/cgroup", root / "sys/fs/cgroup/memory"
    return [
        (two / "memory.max", two / "memory.current", two / "memory.stat"),
        (one / "memory.limit_in_bytes", one / "memory.usage_in_bytes", one / "memory.stat"),
    ]


def _container(files: tuple[Path, Path, Path]) -> int | None:
    """What a control group leaves; cached files count as free, the kernel drops them."""
    limit, used = (int(text) if text.isdigit() else None for text in map(_first, files[:2]))
    if limit is None or used is None:
        return None
    stat = dict(line.split(maxsplit=1) for line in _lines(files[2]) if " " in line)
    cached = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
    return max(limit - used + int(cached), 0)


def _first(path: Path) -> str:
    return next(iter(_lines(path)), "")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except OSError:
        return []
