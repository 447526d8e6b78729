"""Cancelling in mid-answer, with traces exported: the engine stops at once, for these alone.

Client interceptors of others are known to swallow a CancelledError; then an engine goes on
drawing for nobody. So what is asked here is the engine itself, two hops away: `sim`, and vLLM.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

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
from support.sse import events
from support.stack import MakeStack

BOUND = 20.0
KINDS = ("gateway", "session", "inference")
USER = (("parley-tenant", "default"), ("parley-user-bin", b"ada"))


@dataclass(frozen=True)
class Question:
    """One message. `most`: tokens, 0 as the service has it; `schema`: of its answer, if any."""

    message: str
    most: int = 0
    schema: str = ""


@dataclass(frozen=True)
class Questions:
    """Some that go on for so long that they are cancelled, and others that are not."""

    endless: Sequence[str]
    others: Sequence[str]
    # Tokens at most of each endless one; 0: as the service has it.
    most: int = 0
    # What the others can answer, and nothing else.
    answers: Sequence[str] = ()

    def __iter__(self) -> Iterator[Question]:
        yield from (Question(message, self.most) for message in self.endless)
        for message, answer in zip_longest(self.others, self.answers, fillvalue=""):
            yield Question(message, schema=schema_of(answer) if answer else "")


# Nothing but an abort ends the first ones at the engine, before their deadline of two minutes.
ON_SIM = Questions(
    [f"[[sim:hang after=30]] Number {number}" for number in range(5)],
    [f"[[sim:length tokens=120]] [[sim:slow itl=0.03]] {number}" for number in range(3)],
)
# Batched with others, numbers round otherwise, and a model may draw another word: so these have
# one answer by their schemas, and what is missing in it, or is another's, shows.
ON_VLLM = Questions(
    [f"Tell me the whole history of the sea, from the year {number}." for number in range(5)],
    [f"Count from {number} on." for number in (1, 11, 21)],
    most=1200,
    answers=[" ".join(map(str, range(first, first + 20))) for first in (1, 11, 21)],
)


def schema_of(answer: str) -> str:
    """Returns a JSON schema that one string alone follows."""
    return json.dumps({"type": "string", "enum": [answer]})


@dataclass
class Reading:
    """One answer as its reader has it."""

    run: str = ""
    text: str = ""
    # `stop`, `length` or `cancelled`.
    reason: str = ""
    task: asyncio.Task[None] | None = None


@dataclass
class Way:
    """A way to ask and to cancel: over REST, or straight to session."""

    read: Callable[[Question, Reading], Awaitable[None]]
    cancel: Callable[[str], Awaitable[None]]
    endless: Sequence[Reading] = ()
    others: Sequence[Reading] = ()

    @property
    def readings(self) -> Sequence[Reading]:
        """All of them."""
        return [*self.endless, *self.others]

    async def begin(self, questions: Questions) -> None:
        """Ask all, and wait until all answers are in progress."""
        self.endless = [Reading() for _ in questions.endless]
        self.others = [Reading() for _ in questions.others]
        for question, reading in zip(questions, self.readings, strict=True):
            reading.task = asyncio.ensure_future(self.read(question, reading))
        await until(self._begun, flows.ANSWER_SECONDS, "answers begun")

    def _begun(self) -> bool:
        for reading in self.readings:
            if reading.task is not None and reading.task.done():
                reading.task.result()
        return all(len(reading.text) > 20 for reading in self.readings)

    async def end(self) -> None:
        """Read all to their ends."""
        async with asyncio.timeout(flows.ANSWER_SECONDS):
            await asyncio.gather(*(r.task for r in self.readings if r.task))


def over_rest(stack: Stack) -> Way:
    async def read(question: Question, into: Reading) -> None:
        options: dict[str, Any] = {"cache": "bypass", "temperature": 0}
        if question.most:
            options["maxTokens"] = question.most
        if question.schema:
            options["responseFormat"] = json.loads(question.schema)
        body = {"message": question.message, "stream": True, "options": options}
        async with (
            flows.client(stack.url) as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            assert response.status_code == 201, await response.aread()
            async for event in events(response):
                into.run = into.run or event.data["runID"]
                if event.name == "delta":
                    into.text += event.data["text"]
            into.reason = event.data["message"]["finishReason"]

    async def cancel(run: str) -> None:
        async with flows.client(stack.url) as http:
            assert (await http.post(f"/runs/{run}/cancel")).status_code == 202

    return Way(read, cancel)


def straight(session: Client) -> Way:
    async def read(question: Question, into: Reading) -> None:
        stream = Stream()
        options: dict[str, Any] = {"cache": pb.CACHE_MODE_BYPASS, "temperature": 0.0}
        if question.most:
            options["max_tokens"] = question.most
        asked = completion(question.message, **options, json_schema=question.schema)
        reading = asyncio.ensure_future(session._read(session.stub.Complete, asked, stream))
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
    await _shown(await make_stack(env=env), ON_SIM, collector, capsys)


@pytest.mark.vllm
async def test_vllm_stops_at_once_and_for_nobody_else(
    vllm_traces: Collector, vllm_stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    await _shown(vllm_stack, ON_VLLM, vllm_traces, capsys)


async def _shown(
    stack: Stack, questions: Questions, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancel some on both ways to the engine, and look at the others and at the traces."""
    began = time.time_ns()
    alone = over_rest(stack)
    await alone.begin(replace(questions, endless=()))
    await alone.end()
    undisturbed = [(reading.text, reading.reason) for reading in alone.others]
    engine = int(stack.plan("inference-1").grpc.rpartition(":")[2])
    channel = open_channel(stack.plan("session-1").grpc)
    try:
        ways = {
            "gateway, session, inference": over_rest(stack),
            "session, inference": straight(Client(channel, USER, flows.ANSWER_SECONDS)),
        }
        for hops, way in ways.items():
            seconds = await _cancel_some(way, questions, engine)
            assert [(each.text, each.reason) for each in way.others] == undisturbed
            with capsys.disabled():
                said = f"{len(way.endless)} aborted at the engine in {seconds:.3f} s"
                print(f"\n{hops}: {said}")  # noqa: T201 - what was measured
    finally:
        await channel.close()
    await collector.wait_for(
        lambda spans: _cancelled_on_both_sides(
            [span for span in spans if span.start_ns >= began], questions
        ),
        timeout=15,
    )


async def _cancel_some(way: Way, questions: Questions, engine: int) -> float:
    """Cancel the endless ones; seconds until the engine runs no more than the others."""
    async with connect(engine) as client:
        await way.begin(questions)
        began = time.monotonic()
        cancelling = [asyncio.ensure_future(way.cancel(each.run)) for each in way.endless]
        await client.load_until(lambda load: load.running <= len(way.others), BOUND)
        seconds = time.monotonic() - began
        await asyncio.gather(*cancelling)
        await way.end()
        assert [each.reason for each in way.endless] == ["cancelled"] * len(way.endless)
        await client.load_until(lambda load: load.running == load.waiting == 0, BOUND)
    return seconds


def _cancelled_on_both_sides(spans: list[CollectedSpan], questions: Questions) -> bool:
    """Whether each call that was aborted says so, where it was made and where it was served."""
    for service, kind in (("parley-session", "client"), ("parley-inference", "server")):
        statuses = [
            span.attributes.get(semconv.RPC_RESPONSE_STATUS_CODE)
            for span in spans
            if span.service == service and span.kind == kind and span.name.endswith("/Generate")
        ]
        assert statuses.count("CANCELLED") == 2 * len(questions.endless), statuses
        assert statuses.count("OK") == 3 * len(questions.others), statuses
    return True
