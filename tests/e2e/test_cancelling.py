"""Cancelling in mid-answer, with traces exported: the engine stops at once, for these alone.

Client interceptors of others are known to swallow a CancelledError; then an engine goes on
drawing for nobody. So what is asked here is the engine itself, two hops away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from parley.session.v1 import session_pb2 as pb

from e2e import flows
from parley_devstack.stack import Stack
from parley_kit import semconv
from parley_kit.rpc.client import open_channel
from support.inference import connect
from support.otlp import CollectedSpan, Collector
from support.poll import until
from support.session_service import Client, Stream, completion
from support.stack import MakeStack

# Nothing but an abort ends these at the engine, before their deadline of two minutes.
HANGING = [f"[[sim:hang after=30]] Number {number}" for number in range(5)]
GOING_ON = [f"[[sim:length tokens=120]] [[sim:slow itl=0.03]] {number}" for number in range(3)]
BOUND = 20.0
KINDS = ("gateway", "session", "inference")
USER = (("parley-tenant", "default"), ("parley-user-bin", b"ada"))


@dataclass
class Reading:
    """One answer as its reader has it."""

    run: str = ""
    text: str = ""
    # `stop` or `cancelled`.
    reason: str = ""
    task: asyncio.Task[None] | None = None


@dataclass
class Way:
    """A way to ask and to cancel: over REST, or straight to session."""

    read: Callable[[str, Reading], Awaitable[None]]
    cancel: Callable[[str], Awaitable[None]]
    readings: list[Reading] = field(default_factory=list)

    async def begin(self, messages: Sequence[str]) -> None:
        """Ask for all, and wait until all answers are in progress."""
        self.readings = [Reading() for _ in messages]
        for message, reading in zip(messages, self.readings, strict=True):
            reading.task = asyncio.ensure_future(self.read(message, reading))
        await until(lambda: all(len(r.text) > 20 for r in self.readings), 30.0, "answers begun")

    def hanging(self) -> Sequence[Reading]:
        """Those that never end."""
        return self.readings[: len(HANGING)]

    def going_on(self) -> Sequence[Reading]:
        """The others."""
        return self.readings[len(HANGING) :]

    async def end(self) -> None:
        """Read all to their ends."""
        async with asyncio.timeout(flows.ANSWER_SECONDS):
            await asyncio.gather(*(r.task for r in self.readings if r.task))


def over_rest(stack: Stack) -> Way:
    async def read(message: str, into: Reading) -> None:
        body = {"message": message, "stream": True, "options": {"cache": "bypass"}}
        async with (
            flows.client(stack.url) as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            async for event in flows.events(response):
                into.run = into.run or event.data["runID"]
                if event.name == "delta":
                    into.text += event.data["text"]
            into.reason = event.data["message"]["finishReason"]

    async def cancel(run: str) -> None:
        async with flows.client(stack.url) as http:
            assert (await http.post(f"/runs/{run}/cancel")).status_code == 202

    return Way(read, cancel)


def straight(session: Client) -> Way:
    async def read(message: str, into: Reading) -> None:
        stream = Stream()
        reading = asyncio.ensure_future(
            session._read(
                session.stub.Complete,
                completion(message, cache=pb.CACHE_MODE_BYPASS),
                stream,
            )
        )
        while not reading.done():
            await asyncio.wait({reading}, timeout=0.02)
            if stream.accepted is not None:
                into.run, into.text = stream.accepted.run_id, stream.text
        done = (await reading).done
        assert done is not None
        reason = pb.FinishReason.Name(done.message.finish_reason)
        into.reason = reason.removeprefix("FINISH_REASON_").lower()

    async def cancel(run: str) -> None:
        await session.call("CancelRun", pb.CancelRunRequest(run_id=run, wait_seconds=5))

    return Way(read, cancel)


async def test_an_engine_stops_at_once_and_for_nobody_else(
    collector: Collector, make_stack: MakeStack, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {kind: {f"PARLEY_{kind.upper()}_OTLP_ENDPOINT": collector.endpoint} for kind in KINDS}
    stack = await make_stack(env=env)
    alone = over_rest(stack)
    await alone.begin(GOING_ON)
    await alone.end()
    undisturbed = [reading.text for reading in alone.readings]
    engine = int(stack.plan("inference-1").grpc.rpartition(":")[2])
    channel = open_channel(stack.plan("session-1").grpc)
    try:
        ways = {
            "gateway, session, inference": over_rest(stack),
            "session, inference": straight(Client(channel, USER)),
        }
        for hops, way in ways.items():
            seconds = await _cancel_some(way, undisturbed, engine)
            with capsys.disabled():
                said = f"{len(HANGING)} aborted at the engine in {seconds:.3f} s"
                print(f"\n{hops}: {said}")  # noqa: T201 - what was measured
    finally:
        await channel.close()
    await collector.wait_for(_cancelled_on_both_sides, timeout=15)


async def _cancel_some(way: Way, undisturbed: Sequence[str], engine: int) -> float:
    """Cancel those that hang; seconds until the engine runs no more than the others."""
    async with connect(engine) as client:
        await way.begin([*HANGING, *GOING_ON])
        began = time.monotonic()
        cancelling = [asyncio.ensure_future(way.cancel(each.run)) for each in way.hanging()]
        await client.load_until(lambda load: load.running <= len(GOING_ON), BOUND)
        seconds = time.monotonic() - began
        await asyncio.gather(*cancelling)
        await way.end()
        assert [each.reason for each in way.hanging()] == ["cancelled"] * len(HANGING)
        assert [each.reason for each in way.going_on()] == ["stop"] * len(GOING_ON)
        assert [each.text for each in way.going_on()] == undisturbed
        await client.load_until(lambda load: load.running == load.waiting == 0, BOUND)
    return seconds


def _cancelled_on_both_sides(spans: list[CollectedSpan]) -> bool:
    """Whether each call that was aborted says so, where it was made and where it was served."""
    for service, kind in (("parley-session", "client"), ("parley-inference", "server")):
        statuses = [
            span.attributes.get(semconv.RPC_RESPONSE_STATUS_CODE)
            for span in spans
            if span.service == service and span.kind == kind and span.name.endswith("/Generate")
        ]
        assert statuses.count("CANCELLED") == 2 * len(HANGING), statuses
        assert statuses.count("OK") == 3 * len(GOING_ON), statuses
    return True
