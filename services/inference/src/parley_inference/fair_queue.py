"""Who goes next: by priority, then each tenant by its share, whatever the others ask for.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a request's place is the virtual time at which
its tenant would have been served that much, had each tenant a server of its own as fast as its
share. A tenant that was idle gains nothing by it; one that floods the queue waits behind itself.
"""

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_USUAL_SHARE: Final = 1.0


@dataclass(order=True, slots=True)
class _Place(Generic[T]):
    priority: int
    start: float
    order: int
    item: T = field(compare=False)
    tenant: str = field(compare=False)
    # In virtual time.
    cost: float = field(compare=False)
    gone: bool = field(default=False, compare=False)


class FairQueue(Generic[T]):
    """``shares``: of tenants that have another share than 1."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._heap: list[_Place[T]] = []
        self._places: dict[int, _Place[T]] = {}
        self._order = itertools.count()
        # Virtual time: the start of what was taken last.
        self._now = 0.0
        # When each tenant's requests so far will have been served; those of the past are dropped.
        self._finish: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._places)

    def ahead(self, tenant: str, priority: int) -> int:
        """How many of those who wait now would go before a new request."""
        start = self._start(tenant)
        return sum(
            1
            for place in self._places.values()
            if (place.priority, place.start) <= (priority, start)
        )

    def put(self, item: T, tenant: str, *, cost: float, priority: int) -> int:
        """Let an item wait; returns what ``remove`` takes."""
        start = self._start(tenant)
        cost /= self._shares.get(tenant, _USUAL_SHARE)
        self._finish[tenant] = start + cost
        place = _Place(priority, start, next(self._order), item, tenant, cost)
        heapq.heappush(self._heap, place)
        self._places[place.order] = place
        return place.order

    def take(self) -> T:
        """The item whose turn it is. Raises IndexError if nobody waits."""
        while True:
            place = heapq.heappop(self._heap)
            if not place.gone:
                break
        del self._places[place.order]
        self._now = max(self._now, place.start)
        self._finish = {name: end for name, end in self._finish.items() if end > self._now}
        return place.item

    def remove(self, number: int) -> None:
        """Somebody waits no more, and is not charged; may have been taken already."""
        place = self._places.pop(number, None)
        if place is not None:
            place.gone = True
            end = self._finish.get(place.tenant, 0.0) - place.cost
            self._finish[place.tenant] = max(self._now, end)
        if not self._places:
            self._heap.clear()

    def _start(self, tenant: str) -> float:
        return max(self._now, self._finish.get(tenant, 0.0))
