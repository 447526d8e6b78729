"""The last state of a run, put together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from parley_session.domain.model import (
    CacheInfo,
    ContextInfo,
    FinishReason,
    Outcome,
    Problem,
    Run,
    RunState,
    Timings,
    Usage,
)


def outcome(
    run: Run,
    *,
    state: RunState,
    content: str,
    finish_reason: FinishReason,
    now: datetime,
    usage: Usage,
    first_token: float | None,
    cache: CacheInfo,
    context: ContextInfo,
    source: str | None = None,
    error: Problem | None = None,
) -> Outcome:
    """Put an outcome together; `first_token` in seconds since the turn's acceptance."""
    finished = max(0.0, (now - run.created_at).total_seconds())
    return Outcome(
        state=state,
        content=content,
        finish_reason=finish_reason,
        finished_at=now,
        usage=usage,
        timings=Timings(first_token=first_token, finished=finished),
        cache=cache,
        context=context,
        source=source,
        error=error,
    )


def committed(run: Run, made: Outcome, log: str | None) -> Run:
    """Return the run as the commit leaves it in the store."""
    return replace(
        run,
        state=made.state,
        content=made.content,
        finish_reason=made.finish_reason,
        finished_at=made.finished_at,
        usage=made.usage,
        timings=made.timings,
        cache=made.cache,
        context=made.context,
        source=made.source,
        error=made.error,
        log=log,
    )
