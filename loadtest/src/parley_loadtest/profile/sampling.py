"""Sampling the stacks of running processes with py-spy."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

# Seconds beyond the time asked for, for a sampler to write its file.
_GRACE = 20.0


class NoSampler(RuntimeError):
    """There is no sampler, or it may not look; the message says what to do."""


@asynccontextmanager
async def sampled(
    processes: Mapping[Path, int], *, seconds: float, rate: int
) -> AsyncIterator[None]:
    """Sample processes for `seconds`, `rate` times a second; each into its file.

    The body runs meanwhile. Raises NoSampler.
    """
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which(
        "py-spy"
    )
    if program is None:
        raise NoSampler("py-spy is not installed: it comes with the development environment")
    samplers = []
    for file, pid in processes.items():
        await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True)
        samplers.append(
            await asyncio.create_subprocess_exec(
                program, "record", "--pid", str(pid), "--duration", str(round(seconds)),
                "--rate", str(rate), "--format", "raw", "--output", str(file), "--gil",
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip
    try:
        yield
        async with asyncio.timeout(seconds + _GRACE):
            for sampler in samplers:
                _, said = await sampler.communicate()
                if sampler.returncode:
                    reason = said.decode(errors="replace").strip()
                    raise NoSampler(f"py-spy could not look into a process: {reason}")
    finally:
        for sampler in samplers:
            if sampler.returncode is None:
                sampler.terminate()
                await sampler.wait()
