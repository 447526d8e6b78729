"""CPU time by process, children included."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import psutil

BENCH = "benchmark"
"""The benchmark's own process."""


class CpuMeter:
    """Reads the CPU time that named processes have used.

    Args:
        pids: by name; this process is added as `BENCH`.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._processes[BENCH] = psutil.Process()

    def read(self) -> dict[str, float]:
        """Seconds of CPU used so far, user and system, by name."""
        return {name: _used(process) for name, process in self._processes.items()}


def _used(process: psutil.Process) -> float:
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        own = process.cpu_times()
        total += own.user + own.system
        if process.pid != psutil.Process().pid:
            for child in process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    times = child.cpu_times()
                    total += times.user + times.system
    return total


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU used in between, by name."""
    return {name: max(0.0, after[name] - before.get(name, 0.0)) for name in after}
