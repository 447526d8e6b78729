"""Which engines are left alone for a while, because requests keep failing on them.

An engine is ejected after `failures` failures running. When its time is over, one request
probes it: success takes it back (and it starts slowly), failure ejects it for twice as long.
When too few are left, the fault is likelier on this side, or everywhere: then ejection is
ignored, as a fleet of which every engine is ejected would serve nobody.
Pure: times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutlierLimits:
    """When an engine is ejected, and for how long. Times in seconds."""

    # Failures running.
    failures: int = 3
    seconds: float = 5.0
    longest_seconds: float = 60.0
    # A probe that has told nothing for so long was lost: another one may go.
    probe_seconds: float = 10.0
    # With less than this share of the engines left, all are used.
    panic_share: float = 0.3


@dataclass(slots=True)
class _Record:
    failures: int = 0
    ejections: int = 0
    # Until when it is ejected; 0: it is not.
    until: float = 0.0
    probed_at: float | None = None


class Outliers:
    """The engines that failed of late. An address that nobody names any more is forgotten."""

    def __init__(self, limits: OutlierLimits | None = None) -> None:
        self._limits = limits or OutlierLimits()
        self._records: dict[str, _Record] = {}

    def able(self, addresses: Sequence[str], now: float) -> Sequence[str]:
        """Return those that may get a request; all of them when too few would be left."""
        if not self._records:
            return addresses
        left = [address for address in addresses if self._may_try(address, now)]
        if len(left) < self._limits.panic_share * len(addresses) or not left:
            return addresses
        return left

    def ejected(self, address: str) -> bool:
        """Whether an engine is ejected, its probe included."""
        record = self._records.get(address)
        return record is not None and record.until > 0

    def trying(self, address: str, now: float) -> None:
        """Take note that a request goes to an engine: if it is ejected, that is its probe."""
        record = self._records.get(address)
        if record is not None and record.until:
            record.probed_at = now

    def untried(self, address: str) -> None:
        """Take note that a request was given up before it told anything: it was no probe."""
        record = self._records.get(address)
        if record is not None:
            record.probed_at = None

    def succeeded(self, address: str) -> bool:
        """Take note that an engine served; whether it was taken back by that."""
        record = self._records.pop(address, None)
        return record is not None and record.until > 0

    def failed(self, address: str, now: float) -> bool:
        """Take note that a request failed on an engine; whether it is ejected by that."""
        record = self._records.setdefault(address, _Record())
        record.failures += 1
        probing = record.probed_at is not None
        if record.until and not probing:
            # A request from before; it tells nothing new.
            return False
        if not probing and record.failures < self._limits.failures:
            return False
        seconds = min(self._limits.seconds * 2**record.ejections, self._limits.longest_seconds)
        record.until = now + seconds
        record.probed_at = None
        record.ejections = min(record.ejections + 1, 16)
        return True

    def keep(self, addresses: frozenset[str]) -> None:
        """Forget all engines but these."""
        for address in self._records.keys() - addresses:
            del self._records[address]

    def _may_try(self, address: str, now: float) -> bool:
        record = self._records.get(address)
        if record is None or not record.until:
            return True
        if now < record.until:
            return False
        probed = record.probed_at
        return probed is None or now - probed >= self._limits.probe_seconds
