"""Between the REST contract's JSON and session's messages."""

from datetime import UTC
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from parley.session.v1 import session_pb2 as pb

from parley_gateway.requests import NewChatRequest, Options

Json = dict[str, Any]

_ROLES: Final = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
_FINISH_REASONS: Final = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_CANCELLED: "cancelled",
    pb.FINISH_REASON_ERROR: "error",
}
_STATES: Final = {
    pb.RUN_STATE_QUEUED: "queued",
    pb.RUN_STATE_RUNNING: "running",
    pb.RUN_STATE_COMPLETED: "completed",
    pb.RUN_STATE_FAILED: "failed",
    pb.RUN_STATE_CANCELLED: "cancelled",
}
_CACHE_STATUSES: Final = {
    pb.CACHE_STATUS_MISS: "miss",
    pb.CACHE_STATUS_EXACT: "exact",
    pb.CACHE_STATUS_SEMANTIC: "semantic",
    pb.CACHE_STATUS_BYPASS: "bypass",
}
_STRATEGIES: Final = {
    pb.HISTORY_STRATEGY_FULL: "full",
    pb.HISTORY_STRATEGY_TRUNCATE: "truncate",
    pb.HISTORY_STRATEGY_SUMMARIZE: "summarize",
}
_STRATEGY_BY_NAME: Final = {name: value for value, name in _STRATEGIES.items()}
_CACHE_MODE_BY_NAME: Final = {
    "use": pb.CACHE_MODE_USE,
    "refresh": pb.CACHE_MODE_REFRESH,
    "bypass": pb.CACHE_MODE_BYPASS,
}
_WHEN_BUSY_BY_NAME: Final = {"reject": pb.WHEN_BUSY_REJECT, "queue": pb.WHEN_BUSY_QUEUE}
RATING_BY_NAME: Final = {"up": pb.RATING_UP, "down": pb.RATING_DOWN}


def options_message(options: Options | None, timeout_seconds: float) -> pb.CompletionOptions:
    """Return the options as session takes them; what the caller left out stays absent."""
    found = pb.CompletionOptions(timeout_seconds=timeout_seconds)
    if options is None:
        return found
    for name in (
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "history_turns",
    ):
        value = getattr(options, name)
        if value is not None:
            setattr(found, name, value)
    found.stop.extend(options.stop or ())
    found.json_schema = options.response_format or ""
    if options.history is not None:
        found.history = _STRATEGY_BY_NAME[options.history]
    if options.cache is not None:
        found.cache = _CACHE_MODE_BY_NAME[options.cache]
    if options.when_busy is not None:
        found.when_busy = _WHEN_BUSY_BY_NAME[options.when_busy]
    return found


def new_chat_message(request: NewChatRequest) -> pb.NewChat:
    """Return how session shall make the chat."""
    return pb.NewChat(
        title=request.title or "",
        system=request.system or "",
        model=request.model or "",
        ttl_seconds=request.ttl_seconds or 0,
    )


def time_text(moment: Timestamp) -> str:
    """Return RFC 3339 in UTC, to the millisecond."""
    return moment.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def chat_head(chat: pb.Chat) -> Json:
    """What the answer to a new chat says of it."""
    found = {
        "chatID": chat.chat_id,
        "title": chat.title,
        "createdAt": time_text(chat.created_at),
    }
    if chat.HasField("expires_at"):
        found["expiresAt"] = time_text(chat.expires_at)
    return found


def chat_row(chat: pb.Chat) -> Json:
    """A chat in the list of chats."""
    return {
        "chatID": chat.chat_id,
        "title": chat.title,
        "createdAt": time_text(chat.created_at),
        "updatedAt": time_text(chat.updated_at),
        "messageCount": chat.message_count,
    }


def chat_object(chat: pb.Chat) -> Json:
    """A chat without its messages."""
    found: Json = chat_row(chat) | {"model": chat.model}
    if chat.system:
        found["system"] = chat.system
    if chat.HasField("expires_at"):
        found["expiresAt"] = time_text(chat.expires_at)
    if chat.active_run_id:
        found["activeRun"] = chat.active_run_id
    return found


def message_object(message: pb.Message) -> Json:
    """A message."""
    found = {
        "messageID": message.message_id,
        "role": _ROLES.get(message.role, "assistant"),
        "content": message.content,
        "createdAt": time_text(message.created_at),
    }
    if message.finish_reason in _FINISH_REASONS:
        found["finishReason"] = _FINISH_REASONS[message.finish_reason]
    if message.run_id:
        found["runID"] = message.run_id
    return found


def usage_object(usage: pb.Usage) -> Json:
    """Token counts of an answer."""
    return {
        "promptTokens": usage.prompt_tokens,
        "completionTokens": usage.completion_tokens,
        "cachedPromptTokens": usage.cached_prompt_tokens,
    }


def _cache_object(cache: pb.CacheInfo) -> Json:
    found: Json = {"status": _CACHE_STATUSES.get(cache.status, "miss")}
    if cache.reason:
        found["reason"] = cache.reason
    if cache.HasField("similarity"):
        found["similarity"] = cache.similarity
    if cache.HasField("age_seconds"):
        found["ageSeconds"] = cache.age_seconds
    return found


def _context_object(context: pb.ContextInfo) -> Json:
    return {
        "strategy": _STRATEGIES.get(context.strategy, "truncate"),
        "messagesIncluded": context.messages_included,
        "messagesDropped": context.messages_dropped,
        "summaryUsed": context.summary_used,
    }


def answer_object(done: pb.RunDone, *, new_chat: bool) -> Json:
    """The answer to a completion; with what there is to say of the chat where it is new."""
    found = chat_head(done.chat) if new_chat else {"chatID": done.chat.chat_id}
    return found | {
        "runID": done.run_id,
        "message": message_object(done.message),
        "usage": usage_object(done.usage),
        "cache": _cache_object(done.cache),
        "context": _context_object(done.context),
    }


def run_object(run: pb.Run, error: Json | None) -> Json:
    """A run; ``error`` is its problem object, where it failed."""
    found: Json = {
        "runID": run.run_id,
        "chatID": run.chat_id,
        "state": _STATES.get(run.state, "running"),
        "createdAt": time_text(run.created_at),
    }
    if run.HasField("started_at"):
        found["startedAt"] = time_text(run.started_at)
    if run.HasField("finished_at"):
        found["finishedAt"] = time_text(run.finished_at)
    if run.HasField("message"):
        found["message"] = message_object(run.message)
    if run.HasField("usage"):
        found["usage"] = usage_object(run.usage)
    if error is not None:
        found["error"] = error
    return found


def background_object(accepted: pb.RunAccepted) -> Json:
    """Where a run is that nobody waits for."""
    return {
        "chatID": accepted.chat_id,
        "runID": accepted.run_id,
        "state": _STATES.get(accepted.state, "queued"),
    }


def usage_day_object(day: pb.UsageDay) -> Json:
    """What a user has used in a day."""
    return {
        "day": day.day,
        "chats": day.chats,
        "runs": day.runs,
        "promptTokens": day.prompt_tokens,
        "completionTokens": day.completion_tokens,
        "cachedAnswers": day.cached_answers,
    }


def model_object(model: pb.Model) -> Json:
    """A model of the fleet."""
    found: Json = {
        "modelID": model.model_id,
        "contextLength": model.context_length,
        "engine": model.engine,
        "revision": model.revision,
        "adapters": list(model.adapters),
    }
    if model.base_model_id:
        found["baseModelID"] = model.base_model_id
    return found
