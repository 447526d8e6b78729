"""Time, as the session service takes it: injected, so that tests can move it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the wall clock in whole milliseconds, which is what the store keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: `now` to be stored and shown, `monotonic` (seconds) to measure with.

    What one replica concludes about another one's silence is measured with
    `monotonic` alone: wall clocks of two machines differ.
    """

    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
