"""Writing an answer: to the log first, then before its readers.

Readers are fed only what the log has acknowledged, so that whoever takes the run
over has all that was seen. When the log is away, the run's `log` is cleared before
anything else is fed: a taker then knows that it cannot go on. When the log is back,
or was found empty, a new attempt writes the whole text anew, into a stream of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from parley_session import metrics
from parley_session.clock import Clock
from parley_session.domain.model import FrozenPrompt
from parley_session.runs.errors import Fenced, LogLost
from parley_session.runs.holding import Hold
from parley_session.runs.live import LiveRun
from parley_session.runs.log import (
    LogEntry,
    LogFenced,
    LogFull,
    LogMissing,
    LogUnavailable,
    RunLog,
)
from parley_session.runs.uninterrupted import uninterrupted
from parley_session.store.base import Store
from parley_session.store.patience import persistently

_log = logging.getLogger(__name__)

# Seconds between two looks whether the log is back.
LOG_RETRY_SECONDS = 1.0


class Writer:
    """The one writer of a run's text, under the attempt of its hold.

    Every method raises Fenced when another attempt has the run. The feed (`live`)
    is the text so far; `token_ids` are all of its tokens.
    """

    def __init__(
        self, *, store: Store, log: RunLog, hold: Hold, live: LiveRun, clock: Clock
    ) -> None:
        self.token_ids: list[int] = []
        # Set once the engine's last token is written.
        self.finish_reason: str | None = None
        self._store = store
        self._log = log
        self._hold = hold
        self._live = live
        self._clock = clock
        # Text that is on its way to the log, and its entry.
        self._unfed = ""
        self._entry: LogEntry | None = None
        # Entries of this attempt in its stream, the opening one apart.
        self._entries = 0
        # Tokens without text yet: they go with the next entry.
        self._held_back: list[int] = []
        self._probe: asyncio.Task[None] | None = None
        # Making the stream known, which the first text waits for.
        self._opening: asyncio.Task[None] | None = None
        # The answer is larger than a log may be: it is not tried again.
        self._log_full = False

    @property
    def run_id(self) -> str:
        """The run that is written."""
        return self._live.run_id

    def open(self, prompt: FrozenPrompt) -> None:
        """Begin from byte 0, in the background: the first text to be written waits for it.

        First the stream, then `startedAt` with its name and the prompt, naming the attempt.
        """
        self._opening = asyncio.create_task(self._open(prompt), name=f"open {self.run_id}")

    async def _open(self, prompt: FrozenPrompt) -> None:
        try:
            stream = await self._log.create(self.run_id, self._hold.attempt)
        except LogFenced:
            raise Fenced from None
        except LogUnavailable:
            stream = None
            self._suspended()
        await self._name_stream(stream, prompt)

    async def resume(self) -> None:
        """Go on from what an earlier attempt has logged: fence it, then read.

        Waits for a log that is away; the caller bounds the time. Raises LogLost.
        """
        stream = self._hold.run.log
        if stream is None:
            raise LogLost
        self._take_over(await self._fence_and_read(stream))
        self._hold.stream = stream

    async def write(
        self, text: str, token_ids: Sequence[int], finish_reason: str | None = None
    ) -> None:
        """Log a piece, then feed it. `finish_reason`: it is the last one."""
        if self._opening is not None:
            await self._opening
            self._opening = None
        if self._hold.stream is None:
            await self._look_for_log()
        self.token_ids.extend(token_ids)
        self._held_back.extend(token_ids)
        if not text and finish_reason is None:
            return
        self._unfed = text
        if self._hold.stream is not None:
            await self._append(text, finish_reason)
        self.finish_reason = finish_reason
        self._feed()

    async def settle(self) -> None:
        """After an interruption: have log and feed agree again.

        An entry that was on its way may or may not be in the log, and seen there. It
        is sent once more under its own id, which the log takes at most once.
        """
        await self._stop(self._opening)
        if self._entry is None:
            return
        entry, stream = self._entry, self._hold.stream
        if stream is not None:
            try:
                await self._log.append(stream, entry)
            except LogFenced:
                # It is there; or another attempt is, and then the commit is refused.
                _log.debug("an interrupted entry was in the log", extra={"run": self.run_id})
            except (LogMissing, LogFull, LogUnavailable):
                await self._suspend()
        self._feed()

    def _feed(self) -> None:
        text, self._unfed, self._entry = self._unfed, "", None
        self._held_back.clear()
        if text:
            self._live.append(text, self._live.length + len(text.encode()))

    async def close(self) -> None:
        """Let go of what runs in the background."""
        await self._stop(self._probe)
        await self._stop(self._opening)

    async def _stop(self, task: asyncio.Task[None] | None) -> None:
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and isinstance(task.exception(), Fenced):
            _log.debug("another attempt has the run", extra={"run": self.run_id})

    # with the log -----------------------------------------------------------

    async def _append(self, text: str, finish_reason: str | None) -> None:
        stream = self._hold.stream
        assert stream is not None  # noqa: S101 - said by the caller
        self._entries += 1
        entry = LogEntry(
            attempt=self._hold.attempt,
            number=self._entries,
            offset=self._live.length,
            text=text,
            token_ids=tuple(self._held_back),
            finish_reason=finish_reason,
        )
        self._entry = entry
        try:
            await self._log.append(stream, entry)
        except LogFenced:
            raise Fenced from None
        except LogMissing:
            _log.warning("the log was lost; writing it anew", extra={"run": self.run_id})
            await uninterrupted(self._rewrite(text, finish_reason))
        except LogFull:
            self._log_full = True
            await uninterrupted(self._suspend())
        except LogUnavailable:
            await uninterrupted(self._suspend())

    async def _rewrite(self, text: str, finish_reason: str | None) -> None:
        """Write the whole text, `text` at its end, into a new stream under a new attempt."""
        await self._hold.take()
        self._entries = 1
        attempt = self._hold.attempt
        try:
            stream = await self._log.create(self.run_id, attempt)
            await self._log.append(
                stream,
                LogEntry(
                    attempt=attempt,
                    number=1,
                    offset=0,
                    text=self._live.text + text,
                    token_ids=tuple(self.token_ids),
                    finish_reason=finish_reason,
                ),
            )
        except LogFenced:
            raise Fenced from None
        except LogFull:
            self._log_full = True
            await self._suspend()
        except (LogMissing, LogUnavailable):
            await self._suspend()
        else:
            await self._name_stream(stream, None)
            # All tokens are in the new stream's first entry.
            self._held_back.clear()

    async def _name_stream(self, stream: str | None, prompt: FrozenPrompt | None) -> None:
        """Record the stream with the run; remove it where the attempt is refused.

        `prompt`: of a run that has not started.
        """
        now = self._clock.now()
        hold = self._hold
        if not await persistently(
            lambda: self._store.start_run(self.run_id, hold.attempt, stream, now, prompt)
        ):
            if stream is not None:
                await self._remove(stream)
            raise Fenced
        hold.stream = stream
        hold.run = replace(
            hold.run,
            log=stream,
            started_at=hold.run.started_at or now,
            prompt=hold.run.prompt or prompt,
        )

    async def _remove(self, stream: str) -> None:
        try:
            await self._log.delete(stream)
        except LogUnavailable:
            # Nobody knows its name, and it expires by itself.
            _log.info("a stream that no run names is left", extra={"run": self.run_id})

    # without the log --------------------------------------------------------

    async def _suspend(self) -> None:
        """Say that there is no whole log, before what it lacks is fed."""
        self._hold.stream = None
        if not await persistently(lambda: self._store.clear_log(self.run_id, self._hold.attempt)):
            raise Fenced
        self._suspended()

    def _suspended(self) -> None:
        metrics.LOG_SUSPENSIONS.inc()
        _log.warning("the log is away; the answer goes on", extra={"run": self.run_id})

    async def _look_for_log(self) -> None:
        """Write the text anew once the log answers; asking it must not hold the answer up."""
        if self._log_full:
            return
        if self._probe is None:
            self._probe = asyncio.create_task(self._wait_for_log())
        elif self._probe.done():
            self._probe = None
            await uninterrupted(self._rewrite("", None))

    async def _wait_for_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_RETRY_SECONDS)
            try:
                await self._log.ping()
            except LogUnavailable:
                continue
            return

    # of an earlier attempt --------------------------------------------------

    async def _fence_and_read(self, stream: str) -> Sequence[LogEntry]:
        while True:
            try:
                await self._log.fence(stream, self._hold.attempt)
                return await self._log.read(stream)
            except LogMissing:
                raise LogLost from None
            except LogFenced:
                if not await self._fence_was_ours(stream):
                    raise Fenced from None
            except LogUnavailable:
                await asyncio.sleep(LOG_RETRY_SECONDS)

    async def _fence_was_ours(self, stream: str) -> bool:
        """Whether the refused fence had been written by a try that seemed to fail."""
        try:
            entries = await self._log.read(stream)
        except LogMissing:
            raise LogLost from None
        except LogUnavailable:
            return True  # Ask again.
        return entries[-1].attempt <= self._hold.attempt

    def _take_over(self, entries: Sequence[LogEntry]) -> None:
        """Add what a log holds, once it is known to be whole."""
        length = 0
        for entry in entries:
            if entry.text and entry.offset != length:
                raise LogLost
            length += len(entry.text.encode())
        for entry in entries:
            self.token_ids.extend(entry.token_ids)
            self.finish_reason = entry.finish_reason or self.finish_reason
            if entry.text:
                self._live.append(entry.text, entry.offset + len(entry.text.encode()))
