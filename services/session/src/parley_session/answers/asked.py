"""A question that is looked up before its run's task is there to wait for it.

The look-up is a task of its own. Its decision is taken once, by the run's task, or dropped
by whoever finds that it will not be: so no task is left behind, and no lease.
"""

from __future__ import annotations

import asyncio
import logging

from parley_session.answers.deciding import Answers, Decision
from parley_session.context.prompt import Prompt
from parley_session.domain.model import Run

_log = logging.getLogger(__name__)

# Seconds for a dropped look-up to end by itself: cut off, it might leave a lease of which
# nobody knows. One that takes longer waits for another's answer, and has none.
LONGEST = 0.5


class Asked:
    """A look-up on its way. `run`: whose question it is, as that will be inserted."""

    def __init__(self, answers: Answers, run: Run, prompt: Prompt) -> None:
        self._answers = answers
        self.run = run
        self._began = asyncio.get_running_loop().time()
        # Decided, or the answer that another is making is waited for.
        self._settled = asyncio.Event()
        asking = answers.ask(run, prompt, self._settled.set)
        self._task = asyncio.create_task(asking, name=f"look-up {run.id}")
        self._task.add_done_callback(lambda _: self._settled.set())
        self._taken = False

    @property
    def decided(self) -> bool:
        """Whether `decision` waits for nothing."""
        return self._task.done()

    async def settled(self, seconds: float | None = None) -> bool:
        """Wait until it is decided, or waits for another's answer; whether it has come to that.

        At most so many seconds after the look-up began; None: as long as it takes.
        """
        try:
            async with asyncio.timeout_at(None if seconds is None else self._began + seconds):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def decision(self) -> Decision:
        """Wait for it: from then on it is the caller's. Interrupted, it is still to be dropped."""
        decision = await asyncio.shield(self._task)
        self._taken = True
        return decision

    async def drop(self) -> None:
        """End the look-up, and give back a lease that it took; nothing, once it was taken."""
        if self._taken:
            return
        try:
            await asyncio.wait({self._task}, timeout=LONGEST)
        finally:
            self._task.cancel()
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return
        error = self._task.exception()
        if error is None:
            await self._answers.drop(self.run.id, self._task.result())
        else:
            _log.error("a look-up failed unexpectedly", extra={"run": self.run.id}, exc_info=error)
