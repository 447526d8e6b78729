"""What one streamed answer tells of the service that made it."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_GAPS = 4096


@dataclass(slots=True)
class AnswerTiming:
    """Times of one answer, seconds on one monotonic clock."""

    asked_at: float
    first_at: float | None = None
    last_at: float | None = None
    gaps: list[float] = field(default_factory=list)
    """Between pieces of text, at most `MAX_GAPS` of them."""

    def piece(self, now: float) -> None:
        """Note that a piece of text has arrived."""
        if self.last_at is None:
            self.first_at = now
        elif len(self.gaps) < MAX_GAPS:
            self.gaps.append(now - self.last_at)
        self.last_at = now

    @property
    def ttft(self) -> float | None:
        """Time to the first text."""
        return None if self.first_at is None else self.first_at - self.asked_at

    def itl(self, tokens: int) -> float | None:
        """Mean time between tokens after the first, by the service's own count of them.

        None for an answer that came in one piece: it says nothing of tokens.
        """
        if self.first_at is None or self.last_at is None or tokens < 2 or not self.gaps:
            return None
        return (self.last_at - self.first_at) / (tokens - 1)

    def tokens_per_second(self, tokens: int) -> float | None:
        """Tokens over the time from asking to the last text."""
        if self.last_at is None or tokens < 1 or self.last_at <= self.asked_at:
            return None
        return tokens / (self.last_at - self.asked_at)
