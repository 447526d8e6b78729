"""What every `RunQueue` does: one suite for the twin in memory and for Redis Streams."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

import pytest

from parley_session.queue.base import Delivery, QueueFull, QueueLimits, RunQueue, Ticket
from parley_session.queue.memory import MemoryRunQueue
from parley_session.queue.redis import RedisRunQueue
from parley_session.runs.redis_client import RedisLogOptions
from support.poll import until

pytestmark = pytest.mark.integration

LIMITS = QueueLimits(total=6, user=3, redeliver_seconds=0.3)
HASTY = QueueLimits(total=1, user=1, reserve_seconds=0.1)
Open = Callable[..., RunQueue]


@pytest.fixture(params=["memory", "redis"])
async def open_queue(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens the same queue as another process would."""
    opened: list[RunQueue] = []
    if request.param == "memory":
        shared = MemoryRunQueue(LIMITS, monotonic=monotonic)

        def one(limits: QueueLimits = LIMITS) -> RunQueue:
            shared.limits = limits
            return shared
    else:
        options = RedisLogOptions(request.getfixturevalue("redis_url"))
        prefix = f"test:{{{uuid.uuid4().hex}}}"

        def one(limits: QueueLimits = LIMITS) -> RunQueue:
            opened.append(RedisRunQueue(options, uuid.uuid4().hex, limits, prefix=prefix))
            return opened[-1]

    yield one
    for queue in opened:
        await queue.close()


@pytest.fixture
def queue(open_queue: Open) -> RunQueue:
    return open_queue()


def ticket(name: str, user: str = "ann") -> Ticket:
    """`acme-1`: run of tenant acme."""
    return Ticket(name, name.partition("-")[0], user)


async def drain(queue: RunQueue) -> list[str]:
    taken = []
    while (delivery := await queue.take()) is not None:
        taken.append(delivery.ticket.run_id)
        await queue.done(delivery)
    return taken


async def test_tenants_are_served_in_turn_each_in_its_own_order(queue: RunQueue) -> None:
    for name in ("a-1", "a-2", "a-3", "b-1", "b-2", "c-1"):
        assert await queue.put(ticket(name))
    assert await queue.size() == 6
    assert await drain(queue) == ["a-1", "b-1", "c-1", "a-2", "b-2", "a-3"]
    assert await queue.take() is None
    assert await queue.size() == 0


async def test_places_say_how_many_are_served_before(queue: RunQueue) -> None:
    for name in ("a-1", "a-2", "a-3", "b-1"):
        await queue.put(ticket(name))
    places = [await queue.position(ticket(name)) for name in ("a-1", "a-2", "a-3", "b-1", "b-9")]
    assert places == [2, 3, 4, 2, None]
    delivery = await queue.take()
    assert delivery is not None
    await queue.done(delivery)
    assert await queue.position(ticket("a-1")) is None
    assert await queue.position(ticket("a-2")) == 2


async def test_a_run_waits_once(queue: RunQueue) -> None:
    assert await queue.put(ticket("a-1"))
    assert not await queue.put(ticket("a-1"))
    assert await drain(queue) == ["a-1"]
    assert await queue.put(ticket("a-1"))


async def test_bounds_hold_for_a_user_and_in_all(queue: RunQueue) -> None:
    for number in range(3):
        await queue.reserve(ticket(f"a-{number}"))
        await queue.put(ticket(f"a-{number}"))
    with pytest.raises(QueueFull) as full:
        await queue.reserve(ticket("a-3"))
    assert full.value.share
    # The same name in another tenant is somebody else.
    for number in range(3):
        await queue.reserve(ticket(f"b-{number}"))
        await queue.put(ticket(f"b-{number}"))
    with pytest.raises(QueueFull) as full:
        await queue.reserve(ticket("c-1", "carl"))
    assert not full.value.share
    await drain(queue)
    await queue.reserve(ticket("a-3"))


async def test_bounds_hold_for_those_who_come_at_the_same_instant(open_queue: Open) -> None:
    queues = [open_queue() for _ in range(2)]
    came = [ticket(f"{tenant}-{n}") for n in range(5) for tenant in ("a", "b", "c")]

    async def reserve(number: int, who: Ticket) -> bool:
        try:
            await queues[number % 2].reserve(who)
        except QueueFull:
            return False
        return True

    let_in = await asyncio.gather(*(reserve(n, who) for n, who in enumerate(came)))
    assert sum(let_in) == LIMITS.total
    for tenant in ("a", "b", "c"):
        mine = [ok for who, ok in zip(came, let_in, strict=True) if who.tenant == tenant]
        assert sum(mine) <= LIMITS.user


async def test_a_kept_place_is_taken_once_or_given_back(queue: RunQueue) -> None:
    for _ in range(2):
        for number in range(3):
            await queue.reserve(ticket(f"a-{number}"))
    await queue.put(ticket("a-0"))
    with pytest.raises(QueueFull):
        await queue.reserve(ticket("a-3"))
    # One who waits already is not refused: it asks again, and has its place.
    await queue.reserve(ticket("a-0"))
    for _ in range(2):
        await queue.release(ticket("a-1"))
    await queue.reserve(ticket("a-3"))
    with pytest.raises(QueueFull):
        await queue.reserve(ticket("a-4"))


async def test_a_place_that_nobody_takes_or_gives_back_is_free_after_a_while(
    open_queue: Open,
) -> None:
    queue = open_queue(HASTY)
    await queue.reserve(ticket("a-1"))

    async def is_free() -> bool:
        try:
            await queue.reserve(ticket("b-1"))
        except QueueFull:
            return False
        return True

    assert not await is_free()
    await until(is_free, what="free")


async def test_an_entry_is_taken_by_one_of_many(open_queue: Open) -> None:
    queues = [open_queue() for _ in range(4)]
    for number in range(6):
        await queues[0].put(ticket(f"a-{number}"))
    taken = await asyncio.gather(*(queue.take() for queue in queues * 3))
    runs = [delivery.ticket.run_id for delivery in taken if delivery is not None]
    assert sorted(runs) == [f"a-{number}" for number in range(6)]


async def test_what_was_taken_and_not_acknowledged_is_taken_again(open_queue: Open) -> None:
    queue, other = open_queue(), open_queue()
    await queue.put(ticket("a-1"))
    first = await queue.take()
    assert first is not None
    assert await other.take() is None
    assert await other.position(ticket("a-1")) == 1
    again = await until(other.take, what="taken again")
    assert again == first
    await other.done(again)
    await queue.done(first)
    assert await queue.position(ticket("a-1")) is None
    assert await queue.take() is None


async def test_what_is_put_back_keeps_its_place_and_is_taken_by_others(open_queue: Open) -> None:
    queue, other = open_queue(), open_queue()
    await queue.put(ticket("a-1"))
    await queue.put(ticket("a-2"))
    first = await queue.take()
    assert first is not None
    await queue.put_back(first)
    assert await other.position(ticket("a-1")) == 1
    assert sorted(await drain(other)) == ["a-1", "a-2"]
    # Of what somebody else has done, nothing comes back.
    await queue.put_back(first)
    assert await other.take() is None
    assert not await _counted(queue)


async def _counted(queue: RunQueue) -> bool:
    try:
        for number in range(LIMITS.user):
            await queue.reserve(ticket(f"a-new-{number}"))
    except QueueFull:
        return True
    return False


async def test_one_who_waits_hears_of_what_is_put(open_queue: Open) -> None:
    queue, other = open_queue(), open_queue()
    await queue.wait(0.05)

    async def next_one() -> Delivery:
        while True:
            delivery = await queue.take()
            if delivery is not None:
                return delivery
            await queue.wait(30)

    waiting: Awaitable[Delivery] = asyncio.create_task(next_one())
    await asyncio.sleep(0)
    await other.put(ticket("a-1"))
    async with asyncio.timeout(5):
        assert (await waiting).ticket == ticket("a-1")


async def test_a_drained_queue_leaves_nothing_but_its_counters(
    open_queue: Open, redis_url: str
) -> None:
    queue = open_queue()
    if not isinstance(queue, RedisRunQueue):
        return
    for name in ("a-1", "b-1"):
        await queue.reserve(ticket(name))
        await queue.put(ticket(name))
    await queue.reserve(ticket("c-1"))
    await queue.release(ticket("c-1"))
    await drain(queue)
    keys = [
        key.decode() if isinstance(key, bytes) else key
        for key in await queue._client.keys(f"{queue._prefix}*")
    ]
    assert {key.rpartition(":")[2] for key in keys} == {"total", "number", "bell"}
