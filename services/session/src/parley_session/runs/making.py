"""Making an answer: hold, produce, commit, finish.

The order is that of the run protocol (docs/architecture.md). Whatever is written
names the attempt; a refused write means that another attempt has the run, and then
nothing more is written or fed.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial

from parley_kit.errors import ServiceError
from parley_session import metrics
from parley_session.answers.deciding import Answers
from parley_session.clock import Clock
from parley_session.context.prompt import Prompt
from parley_session.context.summarizing import Summarizer
from parley_session.domain.model import (
    CacheInfo,
    CacheStatus,
    ContextInfo,
    FinishReason,
    Outcome,
    Principal,
    Problem,
    Run,
    RunState,
)
from parley_session.runs import observing
from parley_session.runs.errors import Deleted, Fenced, LogLost
from parley_session.runs.finishing import Finisher
from parley_session.runs.holding import Hold
from parley_session.runs.live import Ended, Gone, LiveRun
from parley_session.runs.log import RunLog
from parley_session.runs.outcome import committed, outcome
from parley_session.runs.producing import Producer
from parley_session.runs.signal import Interrupted, Stop, StopSignal
from parley_session.runs.uninterrupted import uninterrupted
from parley_session.runs.waiting import Pace
from parley_session.runs.work import Known, Work
from parley_session.runs.writing import Writer
from parley_session.store.base import Store, StoreUnavailable
from parley_session.store.patience import persistently

_log = logging.getLogger(__name__)

# Seconds beyond a run's deadline for which its commit is retried: an answer that is
# there at the last moment still gets stored.
COMMIT_GRACE = 15.0
# Holders that a run may lose before it is taken to be what they died of.
MAX_FAULTS = 3
# Seconds for saying that a run is handed over.
HANDOVER_SECONDS = 2.0


class Maker:
    """Makes the answers of runs. `holder` names this process; `lease` in seconds."""

    def __init__(
        self,
        *,
        store: Store,
        log: RunLog,
        producer: Producer,
        answers: Answers,
        finisher: Finisher,
        summarizer: Summarizer,
        pace: Pace,
        clock: Clock,
        holder: str,
        lease: float,
    ) -> None:
        self._store = store
        self._log = log
        self._producer = producer
        self._answers = answers
        self._finisher = finisher
        self._summarizer = summarizer
        self._pace = pace
        self._clock = clock
        self.holder = holder
        self._lease = lease

    async def make(self, run: Run, live: LiveRun, signal: StopSignal, known: Known | None) -> None:
        """Make the answer of an unfinished run up to its last event; then the feed is closed.

        `known` is what acceptance knows of a run that it has inserted as held; another
        one is held first. When this task is cancelled, the run is handed over to others.
        """
        hold = Hold(self._store, self._log, run, self.holder, self._lease)
        writer = Writer(store=self._store, log=self._log, hold=hold, live=live, clock=self._clock)
        work = Work(hold, live, signal, writer, self._loop_time_of_deadline(run))
        if known is not None:
            work.prompt, work.chat, work.asked = known.prompt, known.chat, known.asked
        try:
            live.close(await self._make(work, held=known is not None))
        except Fenced:
            lost = hold.run.holder == self.holder
            said = "another attempt has the run" if lost else "another replica held the run first"
            _log.info(said, extra={"run": run.id})
            live.close(Gone.MOVED)
        except Deleted:
            live.close(Gone.DELETED)
        except asyncio.CancelledError:
            # This replica stops.
            live.close(Gone.MOVED)
            await uninterrupted(self._hand_over(work))
            raise
        except TimeoutError:
            _log.error("the store was away until the run's deadline", extra={"run": run.id})
            live.close(Gone.UNSTORED)
        finally:
            # Also when cancelled, or on a defect: no reader waits here for ever.
            live.close(Gone.MOVED)
            self._answers.let_go(run.id)
            await writer.close()
            if work.asked is not None:
                await work.asked.drop()

    async def _make(self, work: Work, *, held: bool) -> Ended | Gone:
        """Take the steps. Raises TimeoutError when the store was away for too long."""
        deadline = work.deadline
        # Also a run that is met long after its deadline is held, and ends.
        if not held:
            async with asyncio.timeout_at(self._end_of_patience(deadline)):
                await work.hold.take()
        work.live.hold()
        held_at = self._clock.monotonic()
        with observing.running(work.run):
            async with work.hold.beating(work.signal):
                made = await self._answer(work)
                async with asyncio.timeout_at(self._end_of_patience(deadline)):
                    run = await self._commit(work, made)
            self._pace.took(self._clock.monotonic() - held_at)
            async with asyncio.timeout_at(self._end_of_patience(deadline)):
                ended = await self._finish(work, run)
        return ended or Gone.DELETED

    async def _hand_over(self, work: Work) -> None:
        """Say that nobody makes the run any more, so that another replica need not wait.

        Where the store does not take it in time, the lease says the same, later.
        """
        run = work.hold.run
        outcome = "not_held"
        try:
            if run.attempt > 0 and run.holder == self.holder:
                async with asyncio.timeout(HANDOVER_SECONDS):
                    told = await self._store.hand_over(run.id, run.attempt)
                outcome = "ok" if told else "refused"
        except (StoreUnavailable, TimeoutError):
            outcome = "store_unavailable"
        metrics.HANDOVERS.labels(outcome).inc()

    # the outcome ------------------------------------------------------------

    async def _answer(self, work: Work) -> Outcome:
        """Produce the text until it ends, for whatever reason: that becomes the outcome."""
        try:
            if work.run.started_at is not None:
                # What was seen of it is kept, also if it is to stop at once.
                async with work.signal.until(self._end_of_patience(work.deadline)):
                    await work.writer.resume()
            if work.run.faults >= MAX_FAULTS:
                return self._failed(
                    work, "poisoned", f"{MAX_FAULTS} replicas were lost while making this answer"
                )
            if work.run.cancel_requested:
                work.signal.stop(Stop.CANCELLED)
            async with work.signal.until(work.deadline):
                await self._producer.produce(work)
        except Interrupted as stopped:
            return await self._interrupted(work, stopped.reason)
        except LogLost:
            return self._failed(
                work, "log_lost", "the replica and the log of this answer were both lost"
            )
        except ServiceError as error:
            await work.writer.settle()
            return self._failed(work, error.code, error.detail)
        except (Fenced, Deleted):
            raise
        except Exception:  # noqa: BLE001 - a defect ends the run, and is told
            _log.exception("an answer failed unexpectedly", extra={"run": work.run.id})
            await work.writer.settle()
            return self._failed(work, "internal", "an internal error")
        reason = work.writer.finish_reason
        return self._outcome(
            work, RunState.COMPLETED, FinishReason(reason) if reason else FinishReason.STOP
        )

    async def _interrupted(self, work: Work, reason: Stop) -> Outcome:
        if reason is Stop.FENCED:
            raise Fenced
        if reason is Stop.DELETED:
            raise Deleted
        await work.writer.settle()
        if reason is Stop.CANCELLED:
            return self._outcome(work, RunState.CANCELLED, FinishReason.CANCELLED)
        return self._failed(work, "timed_out", "the answer did not end within its time")

    def _failed(self, work: Work, code: str, detail: str) -> Outcome:
        return self._outcome(work, RunState.FAILED, FinishReason.ERROR, Problem(code, detail))

    def _outcome(
        self, work: Work, state: RunState, reason: FinishReason, error: Problem | None = None
    ) -> Outcome:
        decision, prompt, usage = work.decision, work.prompt, work.usage
        if usage.completion_tokens == 0:
            usage = replace(usage, completion_tokens=len(work.writer.token_ids))
        return outcome(
            work.run,
            state=state,
            content=work.live.text,
            finish_reason=reason,
            now=self._clock.now(),
            usage=usage,
            first_token=work.first_token,
            cache=decision.info if decision else CacheInfo(CacheStatus.MISS, "not_asked"),
            context=prompt.info if prompt else ContextInfo(work.run.request.options.history, 0, 0),
            source=decision.hit.source_message if decision and decision.hit else None,
            error=error,
        )

    # the end ----------------------------------------------------------------

    async def _commit(self, work: Work, made: Outcome) -> Run:
        """Write the last state: from here on the run is what it says."""
        run = work.run
        if not await persistently(partial(self._store.commit_run, run.id, run.attempt, made)):
            # Refused: fenced, or written by a try of ours that seemed to fail.
            principal = Principal(run.tenant, run.user)
            kept = await persistently(partial(self._store.get_run, principal, run.id))
            if kept is None or not kept.state.final or kept.attempt != run.attempt:
                raise Fenced
        done = committed(run, made, work.hold.stream)
        observing.committed(done)
        return done

    async def _finish(self, work: Work, run: Run) -> Ended | None:
        prompt, decision = work.prompt, work.decision
        fill = None
        if prompt is not None and decision is not None:
            fill = partial(self._answers.offer, run, prompt, decision)
        ended = await persistently(
            partial(self._finisher.finish, run, fill_cache=fill, known=work.chat)
        )
        if ended is not None:
            # Readers first: what follows only saves work later.
            work.live.close(ended)
            await self._remember_counts(prompt)
            if prompt is not None:
                await self._summarizer.extend(run, ended.chat, prompt)
        return ended

    async def _remember_counts(self, prompt: Prompt | None) -> None:
        """Store token counts with their messages, so that each is counted once."""
        try:
            for counted in prompt.counted if prompt else ():
                await self._store.set_tokens(
                    counted.message_id, counted.tokenizer_id, counted.tokens
                )
        except StoreUnavailable:
            _log.info("token counts could not be stored; they are counted again")

    # time -------------------------------------------------------------------

    def _loop_time_of_deadline(self, run: Run) -> float:
        left = (run.deadline - self._clock.now()).total_seconds()
        return asyncio.get_running_loop().time() + left

    @staticmethod
    def _end_of_patience(deadline: float) -> float:
        return max(deadline, asyncio.get_running_loop().time()) + COMMIT_GRACE
