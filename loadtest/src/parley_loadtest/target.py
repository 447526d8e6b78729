"""What is tested: a platform that runs somewhere, or one started for the test."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parley_devstack.stack import Stack


class NoTarget(RuntimeError):
    """There is nothing to test; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SimTimes:
    """How the `sim` engine paces: seconds, and tokens of an answer (0: as asked)."""

    ttft: float
    itl: float
    concurrency: int
    answer_tokens: int
    coalesce: float = 0.02

    @property
    def environment(self) -> dict[str, str]:
        """As the inference service is told."""
        return {
            "PARLEY_INFERENCE_SIM_TTFT": str(self.ttft),
            "PARLEY_INFERENCE_SIM_ITL": str(self.itl),
            "PARLEY_INFERENCE_SIM_CONCURRENCY": str(self.concurrency),
            "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": str(self.answer_tokens),
            "PARLEY_INFERENCE_COALESCE_SECONDS": str(self.coalesce),
        }


LIKE_A_SMALL_GPU = SimTimes(ttft=0.2, itl=0.02, concurrency=64, answer_tokens=64)
NO_DELAY = SimTimes(ttft=0.0, itl=0.0, concurrency=1024, answer_tokens=0)


@contextlib.asynccontextmanager
async def sim_stack(
    times: SimTimes, env: Mapping[str, Mapping[str, str]] | None = None, **config: object
) -> AsyncIterator[Stack]:
    """Run the whole platform on `sim`, in a folder of its own, while the block runs.

    Raises:
        NoTarget: the devstack is not installed, or did not start.
    """
    try:
        from parley_devstack.config import StackConfig
        from parley_devstack.errors import DevstackError
        from parley_devstack.stack import Stack as Running
    except ImportError as exc:
        raise NoTarget(
            "No HOST was given, and the devstack that would start a platform is not installed: "
            "give HOST=http://…, or run this in a checkout."
        ) from exc
    settings = {
        **(env or {}),
        "inference": {**times.environment, **(env or {}).get("inference", {})},
    }
    with await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="parley-load-") as folder:
        defaults: dict[str, object] = {"engine": "sim", "start_seconds": 120.0, "env": settings}
        stack = Running(StackConfig.in_folder(Path(folder), **{**defaults, **config}))
        try:
            await stack.start()
        except DevstackError as exc:
            await stack.stop()
            raise NoTarget(str(exc)) from exc
        try:
            yield stack
        finally:
            await stack.stop()
