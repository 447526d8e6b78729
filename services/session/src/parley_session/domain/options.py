"""Completion options: what is absent is filled in, what is out of bounds refused.

Resolved once, at acceptance, and stored with the turn: a second attempt, the cache
and the engine all see the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from parley_kit.errors import FieldError
from parley_session.domain import errors
from parley_session.domain.model import CacheMode, HistoryStrategy, Options, WhenBusy

_T = TypeVar("_T")

DEFAULT_MAX_TOKENS = 512
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TIMEOUT_SECONDS = 300.0

MAX_MAX_TOKENS = 131_072
MAX_TOP_K = 1000
MAX_SEED = 2**63 - 1
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_JSON_SCHEMA_BYTES = 16 * 1024
MAX_HISTORY_TURNS = 1000
MIN_TIMEOUT_SECONDS = 1.0
MAX_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class AskedOptions:
    """Options as the caller gave them; None: not given."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    json_schema: str = ""
    history: HistoryStrategy | None = None
    history_turns: int | None = None
    cache: CacheMode | None = None
    when_busy: WhenBusy | None = None
    timeout_seconds: float | None = None


def resolve(asked: AskedOptions) -> Options:
    """Fill in the defaults, check the bounds.

    Raises `invalid_request` naming every field that is out of bounds.
    """
    options = _filled(asked)
    wrong = list(_violations(options))
    if wrong:
        raise errors.invalid(wrong)
    return options


def violations(asked: AskedOptions) -> list[FieldError]:
    """List every field that is out of bounds."""
    return list(_violations(_filled(asked)))


def _filled(asked: AskedOptions) -> Options:
    return Options(
        max_tokens=_given(asked.max_tokens, DEFAULT_MAX_TOKENS),
        temperature=_given(asked.temperature, DEFAULT_TEMPERATURE),
        top_p=_given(asked.top_p, 1.0),
        top_k=_given(asked.top_k, 0),
        seed=asked.seed,
        stop=tuple(asked.stop),
        presence_penalty=_given(asked.presence_penalty, 0.0),
        frequency_penalty=_given(asked.frequency_penalty, 0.0),
        json_schema=asked.json_schema,
        history=_given(asked.history, HistoryStrategy.TRUNCATE),
        history_turns=asked.history_turns,
        cache=_given(asked.cache, CacheMode.USE),
        when_busy=_given(asked.when_busy, WhenBusy.REJECT),
        timeout_seconds=_given(asked.timeout_seconds, DEFAULT_TIMEOUT_SECONDS),
    )


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _violations(options: Options) -> Iterator[FieldError]:
    yield from _between("maxTokens", options.max_tokens, 1, MAX_MAX_TOKENS)
    yield from _between("temperature", options.temperature, 0.0, 2.0)
    if not (0.0 < options.top_p <= 1.0):
        yield FieldError("options.topP", "must be above 0 and at most 1")
    yield from _between("topK", options.top_k, 0, MAX_TOP_K)
    if options.seed is not None:
        yield from _between("seed", options.seed, 0, MAX_SEED)
    yield from _stop_violations(options.stop)
    yield from _between("presencePenalty", options.presence_penalty, -2.0, 2.0)
    yield from _between("frequencyPenalty", options.frequency_penalty, -2.0, 2.0)
    if len(options.json_schema.encode()) > MAX_JSON_SCHEMA_BYTES:
        yield FieldError(
            "options.responseFormat", f"the schema must be at most {MAX_JSON_SCHEMA_BYTES} bytes"
        )
    if options.history_turns is not None:
        yield from _between("historyTurns", options.history_turns, 0, MAX_HISTORY_TURNS)
    yield from _between(
        "timeoutSeconds", options.timeout_seconds, MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS
    )


def _between(name: str, value: float, low: float, high: float) -> Iterator[FieldError]:
    if not (math.isfinite(value) and low <= value <= high):
        yield FieldError(f"options.{name}", f"must be from {low:g} to {high:g}")


def _stop_violations(stop: Sequence[str]) -> Iterator[FieldError]:
    if len(stop) > MAX_STOPS:
        yield FieldError("options.stop", f"at most {MAX_STOPS} strings")
    for index, text in enumerate(stop[:MAX_STOPS]):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            yield FieldError(
                f"options.stop.{index}", f"must be 1 to {MAX_STOP_CHARACTERS} characters"
            )
        elif "\x00" in text:
            yield FieldError(f"options.stop.{index}", "must not contain NUL")
