"""Judges requests by their form: every bound of the contract, all mistakes told at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from parley.inference.v1 import inference_pb2 as pb

from parley_inference.engine.base import Message, Role, Sampling
from parley_inference.errors import invalid
from parley_inference.schema_bounds import schema_mistakes
from parley_kit.errors import FieldError

MAX_ID_CHARACTERS: Final = 256
MAX_STOPS: Final = 4
MAX_STOP_CHARACTERS: Final = 64
MAX_COUNTED_MESSAGES: Final = 1000
_MAX_TOP_K: Final = 1_000_000
_MAX_PRIORITY: Final = 1_000_000
# The last second of the year 9999.
_MAX_TIME: Final = 253_402_300_799

_ROLES: Final = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that settings set: messages of a prompt, and their UTF-8 bytes together."""

    max_messages: int
    max_prompt_bytes: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A request of good form, in the words of engines."""

    messages: list[Message]
    sampling: Sampling
    stops: Sequence[str]
    generated: Sequence[int]


def check_generate(request: pb.GenerateRequest, bounds: Bounds) -> Generation:
    """Translate a request. Raises ServiceError `invalid_request` with all that is wrong."""
    mistakes = [
        *_id_mistakes("request_id", request.request_id, required=True),
        *_id_mistakes("cache_salt", request.cache_salt, required=False),
        *_message_mistakes(request.messages, bounds, bounds.max_messages),
        *_sampling_mistakes(request.sampling),
    ]
    if request.messages and request.messages[-1].role != pb.ROLE_USER:
        mistakes.append(FieldError("messages", "the last one must be the user's"))
    if not 0 <= request.template_time <= _MAX_TIME:
        mistakes.append(FieldError("template_time", "must be Unix seconds of the years 1970-9999"))
    if abs(request.priority) > _MAX_PRIORITY:
        mistakes.append(FieldError("priority", f"must lie within ±{_MAX_PRIORITY}"))
    if mistakes:
        raise invalid(*mistakes)
    return Generation(
        [_message(message) for message in request.messages],
        _sampling(request.sampling),
        tuple(request.sampling.stop),
        tuple(request.generated_token_ids),
    )


def check_count(
    request: pb.CountTokensRequest, bounds: Bounds
) -> tuple[list[Message], Sampling | None]:
    """Translate the messages to count, and the options to judge if there are any.

    Raises ServiceError `invalid_request`.
    """
    mistakes = list(_message_mistakes(request.messages, bounds, MAX_COUNTED_MESSAGES))
    judged = request.HasField("sampling")
    if judged:
        mistakes += _sampling_mistakes(request.sampling)
    if mistakes:
        raise invalid(*mistakes)
    messages = [_message(message) for message in request.messages]
    return messages, _sampling(request.sampling) if judged else None


def _message(message: pb.ChatMessage) -> Message:
    return Message(_ROLES[message.role], message.content)


def _sampling(options: pb.SamplingOptions) -> Sampling:
    return Sampling(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed if options.HasField("seed") else None,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        json_schema=options.json_schema,
    )


def _id_mistakes(field: str, value: str, *, required: bool) -> Iterator[FieldError]:
    if required and not value:
        yield FieldError(field, "is required")
    if len(value) > MAX_ID_CHARACTERS:
        yield FieldError(field, f"at most {MAX_ID_CHARACTERS} characters")


def _message_mistakes(
    messages: Sequence[pb.ChatMessage], bounds: Bounds, most: int
) -> Iterator[FieldError]:
    if not messages:
        yield FieldError("messages", "must not be empty")
    if len(messages) > most:
        yield FieldError("messages", f"at most {most}")
        return
    size = 0
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            yield FieldError(f"messages[{index}].role", "must be system, user or assistant")
        if "\0" in message.content:
            yield FieldError(f"messages[{index}].content", "must not hold NUL")
        size += len(message.content.encode())
    if size > bounds.max_prompt_bytes:
        yield FieldError("messages", f"at most {bounds.max_prompt_bytes} bytes together")


def _sampling_mistakes(options: pb.SamplingOptions) -> Iterator[FieldError]:
    if options.max_tokens < 1:
        yield FieldError("sampling.max_tokens", "must be at least 1")
    ranges = (
        ("temperature", options.temperature, 0.0, 2.0),
        ("presence_penalty", options.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", options.frequency_penalty, -2.0, 2.0),
    )
    for name, value, least, most in ranges:
        if not math.isfinite(value) or not least <= value <= most:
            yield FieldError(f"sampling.{name}", f"must lie between {least:g} and {most:g}")
    if not 0.0 < options.top_p <= 1.0:
        yield FieldError("sampling.top_p", "must be above 0 and at most 1")
    if options.top_k > _MAX_TOP_K:
        yield FieldError("sampling.top_k", f"must be at most {_MAX_TOP_K}")
    yield from _stop_mistakes(options.stop)
    if options.json_schema:
        yield from schema_mistakes(options.json_schema)


def _stop_mistakes(stops: Sequence[str]) -> Iterator[FieldError]:
    if len(stops) > MAX_STOPS:
        yield FieldError("sampling.stop", f"at most {MAX_STOPS}")
    for stop in stops[:MAX_STOPS]:
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            yield FieldError("sampling.stop", f"each of 1 to {MAX_STOP_CHARACTERS} characters")
            return
