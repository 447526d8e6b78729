"""Tenants are served by their shares, whatever each of them asks for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_inference.fair_queue import FairQueue


def drain(queue: FairQueue[str], most: int = 1000) -> list[str]:
    return [queue.take() for _ in range(min(most, len(queue)))]


def test_a_flood_does_not_hold_up_another_tenant() -> None:
    queue: FairQueue[str] = FairQueue({})
    for _ in range(50):
        queue.put("flood", "a", cost=10, priority=0)
    drain(queue, 5)
    assert queue.ahead("b", 0) <= 1
    queue.put("other", "b", cost=10, priority=0)
    assert "other" in drain(queue, 2)


def test_shares_are_kept_by_cost() -> None:
    queue: FairQueue[str] = FairQueue({"a": 3.0})
    for _ in range(200):
        queue.put("a", "a", cost=10, priority=0)
        queue.put("b", "b", cost=10, priority=0)
        queue.put("c", "c", cost=20, priority=0)
    served = Counter(drain(queue, 110))
    assert served["a"] == pytest.approx(3 * served["b"], rel=0.1)
    assert served["b"] == pytest.approx(2 * served["c"], rel=0.15)


def test_the_urgent_go_first_and_equals_in_order() -> None:
    queue: FairQueue[str] = FairQueue({})
    queue.put("late", "a", cost=1, priority=5)
    queue.put("first", "b", cost=1, priority=0)
    queue.put("second", "c", cost=1, priority=0)
    queue.put("urgent", "d", cost=1, priority=-5)
    assert drain(queue) == ["urgent", "first", "second", "late"]


def test_who_left_before_their_turn_is_not_charged() -> None:
    queue: FairQueue[str] = FairQueue({})
    for _ in range(20):
        queue.remove(queue.put("a", "a", cost=10, priority=0))
    for _ in range(10):
        queue.put("a", "a", cost=10, priority=0)
        queue.put("b", "b", cost=10, priority=0)
    assert Counter(drain(queue, 10)) == {"a": 5, "b": 5}


def test_idling_earns_nothing() -> None:
    queue: FairQueue[str] = FairQueue({})
    for _ in range(20):
        queue.put("a", "a", cost=10, priority=0)
    drain(queue)
    for _ in range(10):
        queue.put("a", "a", cost=10, priority=0)
        queue.put("b", "b", cost=10, priority=0)
    assert Counter(drain(queue, 10)) == {"a": 5, "b": 5}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=60))
def test_everybody_who_stays_is_taken_once(asks: list[tuple[str, int, bool]]) -> None:
    queue: FairQueue[int] = FairQueue({"b": 2.0})
    numbers = [
        queue.put(i, tenant, cost=cost, priority=0) for i, (tenant, cost, _) in enumerate(asks)
    ]
    staying = set()
    for i, (_, _, leaves) in enumerate(asks):
        if leaves:
            queue.remove(numbers[i])
        else:
            staying.add(i)
    taken = [queue.take() for _ in range(len(queue))]
    assert sorted(taken) == sorted(staying)
    with pytest.raises(IndexError):
        queue.take()
