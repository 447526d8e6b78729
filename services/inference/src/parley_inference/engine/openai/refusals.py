"""An upstream's errors in our words. Nothing of their text is passed on: it may hold prompt."""

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from parley_inference.engine.base import (
    EngineBusy,
    EngineError,
    GenerationFailed,
    PromptTooLong,
    RequestRefused,
)

_TOO_LONG: Final = ("context_length_exceeded", "context length", "context window", "n_ctx")
_BUSY: Final = frozenset({408, 409, 425, 429, 503})
_REFUSED: Final = frozenset({400, 413, 422})
_MEANINGS: Final = {
    401: "the upstream does not accept our credential (401)",
    403: "the upstream does not accept our credential (403)",
    404: "the upstream does not know the model or the path (404)",
}
_MOST_SECONDS: Final = 3600.0


class UpstreamAway(GenerationFailed):
    """The upstream did not take the request, or broke off; another try may go better."""


class _Told(NamedTuple):
    """What an error object says, each empty where it does not."""

    code: str = ""
    param: str = ""
    message: str = ""


def refusal(status: int, body: bytes = b"", retry_after: str = "") -> EngineError:
    """What an answer other than 200 means."""
    if status in _BUSY:
        return EngineBusy(f"the upstream is busy ({status})", _seconds(retry_after))
    if status >= 500:
        return UpstreamAway(f"the upstream failed ({status})")
    if status in _REFUSED:
        return _refused(status, _told(body))
    return GenerationFailed(_MEANINGS.get(status, f"the upstream answered {status}"))


def _refused(status: int, told: _Told) -> EngineError:
    said = f"{told.code} {told.message}".lower()
    if any(sign in said for sign in _TOO_LONG):
        return PromptTooLong("the upstream finds prompt and answer too long")
    field = f"sampling.{told.param}" if told.param.isidentifier() else "sampling"
    return RequestRefused(field, f"the upstream refuses the request ({status})")


def _told(body: bytes) -> _Told:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return _Told()
    error = told.get("error", told) if isinstance(told, dict) else None
    if isinstance(error, dict):
        return _Told(*(str(error.get(name) or "")[:1000] for name in _Told._fields))
    return _Told(message=error[:1000]) if isinstance(error, str) else _Told()


def _seconds(retry_after: str) -> float:
    """Seconds of a Retry-After header, a number or a date; 1 where it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = 1.0
    return min(max(seconds, 0.0), _MOST_SECONDS) if math.isfinite(seconds) else 1.0
