"""The signal to scale by."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley_session import metrics
from parley_session.fleet.demand import report_demand
from parley_session.fleet.scaling import UNKNOWN_CAPACITY, EngineLoad, demand
from parley_session.queue.base import Ticket
from parley_session.queue.memory import MemoryRunQueue
from support.poll import until
from support.session_fakes import FakeFleet


def test_requests_count_by_what_an_engine_batches() -> None:
    loads = [EngineLoad(8, 2, 10), EngineLoad(5, 0, 10)]
    assert demand(loads) == pytest.approx(1.5)
    assert demand(loads, queued=20) == pytest.approx(3.5)


def test_a_cache_that_fills_first_counts_and_so_do_those_that_wait_for_it() -> None:
    # Four long answers fill the cache of an engine that could batch sixteen.
    loads = [EngineLoad(4, 4, 16, kv_used_share=1.0)]
    assert demand(loads) == pytest.approx(2.0)
    assert demand(loads, queued=4) == pytest.approx(3.0)


def test_without_an_engine_what_waits_is_measured_by_what_one_batched() -> None:
    assert demand([], queued=12, capacity=4) == pytest.approx(3.0)
    assert demand([], queued=12) == pytest.approx(12 / UNKNOWN_CAPACITY)
    assert demand([]) == 0.0


# A machine under load is no defect.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
loads = st.builds(
    EngineLoad,
    running=st.integers(0, 32),
    waiting=st.integers(0, 64),
    capacity=st.just(32),
    kv_used_share=st.floats(0, 1),
)


@PATIENT
@given(found=st.lists(loads, min_size=1, max_size=8), queued=st.integers(0, 500))
def test_an_idle_engine_that_joins_changes_nothing(found: list[EngineLoad], queued: int) -> None:
    """Nothing swings: the engine that the signal asked for does not make it ask for more."""
    joined = [*found, EngineLoad(0, 0, 32)]
    assert demand(joined, queued) == pytest.approx(demand(found, queued))


@PATIENT
@given(found=st.lists(loads, min_size=1, max_size=8), queued=st.integers(0, 500))
def test_more_that_waits_is_never_less_work(found: list[EngineLoad], queued: int) -> None:
    assert demand(found, queued + 1) >= demand(found, queued)


async def test_the_gauges_follow_fleet_and_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_session.fleet.demand.PERIOD_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    queue, fleet = MemoryRunQueue(monotonic=loop.time), FakeFleet()
    (model,) = fleet.served
    reporting = asyncio.create_task(report_demand(fleet, queue))

    def told() -> tuple[float, float]:
        gauge = metrics.ENGINE_DEMAND.labels(model)._value.get()
        return metrics.QUEUE_SIZE._value.get(), gauge * fleet.slots

    try:
        await queue.put(Ticket("r1", "acme", "ann"))
        await until(lambda: told() == (1.0, 1.0))
        # While the queue is away, what it last said stands.
        queue.away = True
        fleet.drawing = 2
        await until(lambda: told() == (1.0, 3.0))
        queue.away = False
        await queue.take()
        await queue.put(Ticket("r2", "acme", "ann"))
        await until(lambda: told()[0] == len(queue))
    finally:
        reporting.cancel()
        await asyncio.wait({reporting})
