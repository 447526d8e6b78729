"""Runs of a `MemoryStore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from parley_session.domain.model import FrozenPrompt, Outcome, Principal, Run, RunState
from parley_session.store.base import MAX_RUNS_READ, Beat
from parley_session.store.documents import runs as documents
from parley_session.store.documents.fields import stored_time
from parley_session.store.memory.part import Part, owned


class MemoryRuns(Part):
    """The runs."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, Run] = {}

    async def insert_run(self, run: Run) -> bool:
        """See `Store.insert_run`."""
        self._reach()
        if run.id in self._runs:
            return False
        self._runs[run.id] = documents.run_from(documents.run_to(run))
        return True

    async def get_run(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.get_run`."""
        self._reach()
        return owned(principal, self._runs.get(run_id))

    async def hold_run(self, run_id: str, attempt: int, holder: str, faults: int = 0) -> Run | None:
        """See `Store.hold_run`."""
        self._reach()
        run = self._unfinished(run_id, attempt)
        if run is None:
            return None
        self._runs[run_id] = run = replace(
            run, attempt=attempt + 1, holder=holder, faults=faults, state=RunState.RUNNING
        )
        return run

    async def move_beat(self, run_id: str, attempt: int) -> Beat | None:
        """See `Store.move_beat`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return None
        self._runs[run_id] = replace(run, beat=run.beat + 1)
        return Beat(run.cancel_requested)

    async def hand_over(self, run_id: str, attempt: int) -> bool:
        """See `Store.hand_over`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(run, handed_over=attempt)
        return True

    async def start_run(
        self,
        run_id: str,
        attempt: int,
        log: str | None,
        at: datetime,
        prompt: FrozenPrompt | None = None,
    ) -> bool:
        """See `Store.start_run`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        if run.started_at is None:
            run = replace(run, started_at=stored_time(at), prompt=prompt)
        self._runs[run_id] = replace(run, log=log)
        return True

    async def clear_log(self, run_id: str, attempt: int) -> bool:
        """See `Store.clear_log`."""
        self._reach()
        run = self._held(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(run, log=None)
        return True

    async def commit_run(self, run_id: str, attempt: int, outcome: Outcome) -> bool:
        """See `Store.commit_run`."""
        self._reach()
        run = self._unfinished(run_id, attempt)
        if run is None:
            return False
        self._runs[run_id] = replace(
            run,
            state=outcome.state,
            content=outcome.content,
            finish_reason=outcome.finish_reason,
            finished_at=stored_time(outcome.finished_at),
            usage=outcome.usage,
            timings=outcome.timings,
            cache=outcome.cache,
            context=outcome.context,
            source=outcome.source,
            error=outcome.error,
        )
        return True

    async def request_cancel(self, principal: Principal, run_id: str) -> Run | None:
        """See `Store.request_cancel`."""
        self._reach()
        run = owned(principal, self._runs.get(run_id))
        if run is not None and not run.state.final:
            self._runs[run_id] = run = replace(run, cancel_requested=True)
        return run

    async def list_run_ids(self, chat_id: str) -> Sequence[str]:
        """See `Store.list_run_ids`."""
        self._reach()
        found = [run.id for run in self._runs.values() if run.chat == chat_id]
        return found[:MAX_RUNS_READ]

    async def fence_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """See `Store.fence_runs`."""
        self._reach()
        logs: list[str] = []
        for run_id in set(run_ids):
            run = self._runs.get(run_id)
            if run is not None:
                self._runs[run_id] = replace(run, attempt=run.attempt + 1)
                logs += [run.log] if run.log is not None else []
        return logs

    async def delete_runs(self, run_ids: Sequence[str]) -> None:
        """See `Store.delete_runs`."""
        self._reach()
        for run_id in run_ids:
            self._runs.pop(run_id, None)

    def _unfinished(self, run_id: str, attempt: int) -> Run | None:
        run = self._runs.get(run_id)
        return None if run is None or run.state.final or run.attempt != attempt else run

    def _held(self, run_id: str, attempt: int) -> Run | None:
        return self._unfinished(run_id, attempt) if attempt > 0 else None
