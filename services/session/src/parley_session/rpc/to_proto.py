"""The domain as the contract's messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from parley.session.v1 import session_pb2 as pb

from parley_session.domain.model import (
    CacheInfo,
    CacheStatus,
    Chat,
    ChatListing,
    ContextInfo,
    FinishReason,
    HistoryStrategy,
    Message,
    Problem,
    Role,
    Run,
    RunState,
    Usage,
    message_id,
)
from parley_session.domain.usage import UsageDay
from parley_session.fleet.base import Model
from parley_session.runs.asking import Accepted
from parley_session.runs.live import Ended, Piece, Queued

_ROLES = {
    Role.SYSTEM: pb.ROLE_SYSTEM,
    Role.USER: pb.ROLE_USER,
    Role.ASSISTANT: pb.ROLE_ASSISTANT,
}
_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    FinishReason.ERROR: pb.FINISH_REASON_ERROR,
}
_STATES = {
    RunState.QUEUED: pb.RUN_STATE_QUEUED,
    RunState.RUNNING: pb.RUN_STATE_RUNNING,
    RunState.COMPLETED: pb.RUN_STATE_COMPLETED,
    RunState.FAILED: pb.RUN_STATE_FAILED,
    RunState.CANCELLED: pb.RUN_STATE_CANCELLED,
}
_STRATEGIES = {
    HistoryStrategy.FULL: pb.HISTORY_STRATEGY_FULL,
    HistoryStrategy.TRUNCATE: pb.HISTORY_STRATEGY_TRUNCATE,
    HistoryStrategy.SUMMARIZE: pb.HISTORY_STRATEGY_SUMMARIZE,
}
_CACHE_STATUSES = {
    CacheStatus.MISS: pb.CACHE_STATUS_MISS,
    CacheStatus.EXACT: pb.CACHE_STATUS_EXACT,
    CacheStatus.SEMANTIC: pb.CACHE_STATUS_SEMANTIC,
    CacheStatus.BYPASS: pb.CACHE_STATUS_BYPASS,
}


def timestamp(at: datetime | None) -> Timestamp | None:
    """Convert a time; None stays absent."""
    if at is None:
        return None
    converted = Timestamp()
    converted.FromDatetime(at)
    return converted


def chat(source: Chat) -> pb.Chat:
    """Convert a chat."""
    return pb.Chat(
        chat_id=source.id,
        title=source.title,
        system=source.system,
        model=source.model,
        created_at=timestamp(source.created_at),
        updated_at=timestamp(source.updated_at),
        expires_at=timestamp(source.expires_at),
        message_count=source.message_count,
        active_run_id=source.pending[0].run if source.pending else "",
    )


def listing(source: ChatListing) -> pb.Chat:
    """Convert a chat as a list shows it."""
    return pb.Chat(
        chat_id=source.id,
        title=source.title,
        created_at=timestamp(source.created_at),
        updated_at=timestamp(source.updated_at),
        message_count=source.message_count,
    )


def message(source: Message) -> pb.Message:
    """Convert a message."""
    return pb.Message(
        message_id=source.id,
        role=_ROLES[source.role],
        content=source.content,
        created_at=timestamp(source.created_at),
        finish_reason=_finish_reason(source.finish_reason),
        run_id=source.run,
    )


def run(source: Run) -> pb.Run:
    """Convert a run."""
    ended = source.state.final
    return pb.Run(
        run_id=source.id,
        chat_id=source.chat,
        state=_STATES[source.state],
        created_at=timestamp(source.created_at),
        started_at=timestamp(source.started_at),
        finished_at=timestamp(source.finished_at),
        message=_answer(source) if ended else None,
        usage=_usage(source.usage) if ended else None,
        error=_problem(source.error) if source.error else None,
        cache=_cache(source.cache) if source.cache else None,
        context=_context(source.context) if source.context else None,
    )


def usage_day(source: UsageDay) -> pb.UsageDay:
    """Convert a day's usage."""
    return pb.UsageDay(
        day=source.day.isoformat(),
        chats=source.chats,
        runs=source.runs,
        prompt_tokens=source.prompt_tokens,
        completion_tokens=source.completion_tokens,
        cached_answers=source.cached_answers,
    )


def model(source: Model) -> pb.Model:
    """Convert a model."""
    return pb.Model(
        model_id=source.id,
        context_length=source.context_length,
        engine=source.engine,
        revision=source.revision,
        adapters=source.adapters,
        base_model_id=source.base,
    )


# events -----------------------------------------------------------------------


def accepted(source: Accepted) -> pb.RunEvent:
    """Convert an acceptance."""
    return run_accepted(source.run, replayed=source.replayed, background=source.background)


def run_accepted(source: Run, *, replayed: bool, background: bool = False) -> pb.RunEvent:
    """Make the first event of a run's stream."""
    return pb.RunEvent(
        accepted=pb.RunAccepted(
            run_id=source.id,
            chat_id=source.chat,
            message_id=message_id(source.chat, source.seq + 1),
            replayed=replayed,
            state=_STATES[source.state],
            new_chat=source.request.new_chat,
            background=background,
        )
    )


def event(source: Queued | Piece | Ended) -> pb.RunEvent:
    """Convert an event of a run's stream."""
    if isinstance(source, Piece):
        return delta(source)
    return ended(source) if isinstance(source, Ended) else queued(source)


def queued(source: Queued) -> pb.RunEvent:
    """Convert a place in the queue."""
    return pb.RunEvent(
        queued=pb.RunQueued(position=source.position, eta_seconds=source.eta_seconds)
    )


def delta(source: Piece) -> pb.RunEvent:
    """Convert a piece of the answer."""
    return pb.RunEvent(delta=pb.RunDelta(text=source.text, end_offset=source.end))


def ended(source: Ended) -> pb.RunEvent:
    """Make the last event of a run's stream."""
    last = source.run
    if last.error is not None:
        return pb.RunEvent(
            failed=pb.RunFailed(
                run_id=last.id,
                chat_id=last.chat,
                problem=_problem(last.error),
                message=_answer(last),
            )
        )
    return pb.RunEvent(
        done=pb.RunDone(
            chat=chat(source.chat),
            run_id=last.id,
            message=_answer(last),
            usage=_usage(last.usage),
            cache=_cache(last.cache) if last.cache else None,
            context=_context(last.context) if last.context else None,
        )
    )


def _answer(source: Run) -> pb.Message:
    return pb.Message(
        message_id=message_id(source.chat, source.seq + 1),
        role=pb.ROLE_ASSISTANT,
        content=source.content,
        created_at=timestamp(source.finished_at),
        finish_reason=_finish_reason(source.finish_reason),
        run_id=source.id,
    )


def _finish_reason(source: FinishReason | None) -> pb.FinishReason.ValueType:
    return _FINISH_REASONS[source] if source else pb.FINISH_REASON_UNSPECIFIED


def _usage(source: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=source.prompt_tokens,
        completion_tokens=source.completion_tokens,
        cached_prompt_tokens=source.cached_prompt_tokens,
    )


def _cache(source: CacheInfo) -> pb.CacheInfo:
    return pb.CacheInfo(
        status=_CACHE_STATUSES[source.status],
        reason=source.reason,
        similarity=source.similarity,
        age_seconds=source.age_seconds,
    )


def _context(source: ContextInfo) -> pb.ContextInfo:
    return pb.ContextInfo(
        strategy=_STRATEGIES[source.strategy],
        messages_included=source.messages_included,
        messages_dropped=source.messages_dropped,
        summary_used=source.summary_used,
    )


def _problem(source: Problem) -> pb.Problem:
    return pb.Problem(code=source.code, detail=source.detail)
