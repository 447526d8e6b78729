"""Periodic jobs: each due run is made once, ends in time, and is made again if it did not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from parley_session.clock import Clock
from parley_session.domain.jobs import JobEnd
from parley_session.jobs import scheduling
from parley_session.jobs.base import Job, Unfinished
from parley_session.jobs.claims import TAKEN_OVER_AFTER, Claims
from parley_session.jobs.performing import Performer
from parley_session.jobs.scheduling import Scheduler
from parley_session.store.base import StoreUnavailable
from parley_session.store.memory.store import MemoryStore
from support.poll import until
from support.session_world import ManualClock

PERIOD, DEADLINE = 10.0, 60.0


class Work:
    """What a job does, and what it was given; `hold`: it waits for the event."""

    def __init__(self) -> None:
        self.given: list[datetime | None] = []
        self.hold: asyncio.Event | None = None
        self.failure: Exception | None = None
        self.at_once = 0
        self.most_at_once = 0
        self.left = 0

    async def __call__(self, since: datetime | None) -> None:
        self.given.append(since)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.at_once -= 1

    async def count(self) -> int:
        return self.left


class Fleet:
    """Replicas over one store; all have the same clocks."""

    def __init__(self) -> None:
        self.time = ManualClock()
        self.store = MemoryStore(now=self.time.now)

    def replica(self) -> Performer:
        clock = self.time.clock()
        return Performer(Claims(self.store, clock, "a replica"), clock)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def job(work: Work, request: pytest.FixtureRequest) -> Job:
    """A job of the test's own name."""
    return Job(request.node.name, PERIOD, DEADLINE, work, work.count)


def runs(job: Job, outcome: str) -> float:
    labels = {"job": job.name, "outcome": outcome}
    return REGISTRY.get_sample_value("parley_session_job_runs_total", labels) or 0


def shown(name: str, job: Job) -> float | None:
    return REGISTRY.get_sample_value(f"parley_session_job_{name}", {"job": job.name})


# claims -----------------------------------------------------------------------


async def test_of_many_replicas_one_does_a_job_each_time_that_it_is_due(
    fleet: Fleet, work: Work, job: Job
) -> None:
    replicas = [fleet.replica() for _ in range(8)]

    async def all_look() -> None:
        await asyncio.gather(*(one.perform(job) for one in replicas))

    began = [fleet.time.now() + timedelta(seconds=PERIOD * n) for n in range(3)]
    for n in range(3):
        await all_look()
        await all_look()
        assert work.given == [None, *began][: n + 1]
        fleet.time.advance(PERIOD)
    assert runs(job, "ok") == 3
    assert work.most_at_once == 1


async def test_a_job_whose_replica_was_killed_is_done_by_another_when_no_run_can_last(
    fleet: Fleet, work: Work, job: Job
) -> None:
    await fleet.replica().perform(job)
    before = fleet.time.now()
    fleet.time.advance(PERIOD)
    assert await Claims(fleet.store, fleet.time.clock(), "killed").claim(job) is not None
    others = [fleet.replica() for _ in range(3)]

    async def look() -> int:
        await asyncio.gather(*(one.perform(job) for one in others))
        return len(work.given)

    assert await look() == 1
    fleet.time.advance(TAKEN_OVER_AFTER * DEADLINE - 1)
    assert await look() == 1
    fleet.time.advance(1)
    assert await look() == 2
    assert work.given[1] == before, "what the killed one has left is not taken for done"
    assert await look() == 2


async def test_a_replica_that_slept_through_its_claim_changes_nothing_any_more(
    fleet: Fleet, work: Work, job: Job
) -> None:
    slow, other = fleet.replica(), fleet.replica()
    work.hold = asyncio.Event()
    frozen = asyncio.create_task(slow.perform(job))
    await until(lambda: work.given)
    await other.perform(job)
    fleet.time.advance(TAKEN_OVER_AFTER * DEADLINE)
    taken = asyncio.create_task(other.perform(job))
    await until(lambda: len(work.given) == 2)
    running = await fleet.store.get_job(job.name)
    work.hold.set()
    await frozen
    assert running is not None
    assert running.attempt == 2
    await taken
    ended = await fleet.store.get_job(job.name)
    assert ended is not None
    assert (ended.attempt, ended.running, ended.succeeded_at) == (2, False, fleet.time.now())


async def test_a_job_that_its_replica_broke_off_on_stopping_is_due_at_once(
    fleet: Fleet, work: Work, job: Job
) -> None:
    work.hold = asyncio.Event()
    stopping = asyncio.create_task(fleet.replica().perform(job))
    await until(lambda: work.given)
    stopping.cancel()
    await asyncio.wait({stopping})
    assert stopping.cancelled()
    assert runs(job, "stopped") == 1
    work.hold = None
    await fleet.replica().perform(job)
    assert work.given == [None, None]
    assert runs(job, "ok") == 1


async def test_a_time_that_no_run_sets_does_not_put_a_job_off(
    fleet: Fleet, work: Work, job: Job
) -> None:
    await fleet.store.claim_job(job.name, 0, "one with a wrong clock")
    await fleet.store.end_job(job.name, 1, JobEnd(fleet.time.now() + timedelta(days=400)))
    await fleet.replica().perform(job)
    assert len(work.given) == 1


async def test_every_replica_shows_what_one_of_them_has_left_and_when(
    fleet: Fleet, work: Work, job: Job
) -> None:
    work.left = 7
    await fleet.replica().perform(job)
    assert shown("backlog", job) == 7
    assert shown("last_success_timestamp_seconds", job) == fleet.time.now().timestamp()
    await fleet.store.claim_job(job.name, 1, "another process")
    later = fleet.time.now() + timedelta(seconds=1)
    await fleet.store.end_job(job.name, 2, JobEnd(later, later, 5))
    await fleet.replica().perform(job)
    assert shown("backlog", job) == 5
    assert shown("last_success_timestamp_seconds", job) == later.timestamp()


# runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "outcome", "said"),
    [
        (ZeroDivisionError("a defect"), "failed", "a job failed unexpectedly"),
        (TimeoutError("its own"), "failed", "a job failed unexpectedly"),
        (StoreUnavailable("away"), "store_unavailable", "a job found the store away"),
        (Unfinished("no cache"), "unfinished", "a job is unfinished"),
    ],
)
async def test_a_job_that_fails_is_named_counted_and_done_again_at_its_next_time(
    fleet: Fleet,
    work: Work,
    job: Job,
    failure: Exception,
    outcome: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = fleet.replica()
    work.failure, work.left = failure, 3
    await replica.perform(job)
    await replica.perform(job)
    assert (len(work.given), runs(job, outcome)) == (1, 1)
    lines = [record for record in caplog.records if record.getMessage() == said]
    assert [vars(line)["job"] for line in lines] == [job.name]
    assert shown("backlog", job) == 3
    assert shown("last_success_timestamp_seconds", job) is None
    work.failure = None
    fleet.time.advance(PERIOD)
    await replica.perform(job)
    assert (work.given, runs(job, "ok")) == ([None, None], 1)


async def test_a_job_ends_at_its_deadline(fleet: Fleet, work: Work, job: Job) -> None:
    work.hold = asyncio.Event()
    async with asyncio.timeout(5):
        await fleet.replica().perform(replace(job, deadline=0.01))
    assert runs(job, "timed_out") == 1
    assert work.at_once == 0
    record = await fleet.store.get_job(job.name)
    assert record is not None
    assert not record.running


async def test_a_store_that_is_away_is_counted_and_asked_again(
    fleet: Fleet, work: Work, job: Job
) -> None:
    replica = fleet.replica()
    fleet.store.away = True
    await replica.perform(job)
    assert (work.given, runs(job, "store_unavailable")) == ([], 1)
    fleet.store.away = False
    await replica.perform(job)
    assert len(work.given) == 1


async def test_a_job_that_each_replica_does_for_itself_asks_nobody(
    fleet: Fleet, work: Work, job: Job
) -> None:
    own = replace(job, shared=False)
    for _ in range(2):
        await asyncio.gather(*(fleet.replica().perform(own) for _ in range(3)))
    assert len(work.given) == 6
    assert await fleet.store.get_job(job.name) is None


# schedules --------------------------------------------------------------------


class Scheduling:
    """A scheduler that runs, with jobs that each call a function."""

    def __init__(self, clock: Clock | None = None, **work: Callable[[], Any]) -> None:
        self.work = work
        self.jobs = [Job(name, 0.02, DEADLINE, self._none, shared=False) for name in work]
        self.scheduler = Scheduler(self.jobs, self._perform, clock or Clock())
        self.running: asyncio.Task[None] | None = None

    async def _none(self, since: datetime | None) -> None:
        raise NotImplementedError

    async def _perform(self, job: Job) -> None:
        await self.work[job.name]()

    async def __aenter__(self) -> Scheduling:
        self.running = asyncio.create_task(self.scheduler.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.running is not None
        self.running.cancel()
        await asyncio.wait({self.running})


def counting() -> tuple[list[None], Callable[[], Any]]:
    counted: list[None] = []

    async def count() -> None:
        counted.append(None)

    return counted, count


async def test_a_job_slower_than_its_period_does_not_overlap_with_itself_nor_stop_others() -> None:
    slow, (others, count) = Work(), counting()
    slow.hold = asyncio.Event()
    async with Scheduling(slow=lambda: slow(None), quick=count) as made:
        await until(lambda: runs(made.jobs[0], "skipped") >= 2 and len(others) >= 5)
        assert len(slow.given) == 1
        slow.hold.set()
        await until(lambda: len(slow.given) >= 3)
        assert slow.most_at_once == 1


async def test_a_defect_in_one_job_stops_no_other_and_not_itself() -> None:
    broken: list[None] = []

    async def fail() -> None:
        broken.append(None)
        raise ZeroDivisionError

    counted, count = counting()
    async with Scheduling(broken=fail, sound=count):
        await until(lambda: len(broken) >= 3 and len(counted) >= 3)


async def test_stopping_ends_what_is_being_done_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    work.hold = asyncio.Event()
    async with Scheduling(job=lambda: work(None)):
        await until(lambda: work.given)
    assert work.at_once == 0
    assert caplog.text == ""


async def test_a_wall_clock_that_is_set_back_does_not_put_jobs_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = timedelta()

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - back

    for module in ("apscheduler.schedulers.base", "apscheduler.triggers.interval"):
        monkeypatch.setattr(f"{module}.datetime", Stepped)
    monkeypatch.setattr(scheduling, "datetime", Stepped)
    monkeypatch.setattr(scheduling, "CLOCK_SECONDS", 0.05)
    counted, count = counting()
    async with Scheduling(Clock(now=lambda: Stepped.now(UTC)), job=count):
        await until(lambda: len(counted) >= 2)
        back = timedelta(hours=1)
        so_far = len(counted)
        await until(lambda: len(counted) >= so_far + 5)
