"""Calls spread over session replicas, and survive them."""

import asyncio
from collections.abc import Callable

import grpc
import httpx
import pytest
from parley.session.v1 import session_pb2 as pb

from parley_gateway.clients import session
from parley_kit.errors import ServiceError
from support.fake_session import ANSWER, FakeSession, Script
from support.poll import until
from support.sse import events
from support.tcp_proxy import TcpProxy

from .conftest import ChangingResolver, Stack, StartStack

pytestmark = pytest.mark.integration


async def _ready(stack: Stack, count: int) -> None:
    await until(lambda: len(stack.gateway.ready_replicas()) == count, what=f"{count} ready")


async def test_three_replicas_are_all_used(start_stack: StartStack) -> None:
    stack = await start_stack(replicas=3)
    for _ in range(60):
        assert (await stack.client.get("/models")).status_code == 200
        assert (await stack.client.post("/chat", json={"message": "x"})).status_code == 201
    assert all(fake.calls["ListModels"] for fake in stack.replicas)
    assert all(fake.calls["Complete"] for fake in stack.replicas)


async def test_a_new_replica_receives_calls_and_one_that_left_none(
    start_stack: StartStack,
) -> None:
    resolver = ChangingResolver(frozenset())
    stack = await start_stack(replicas=1, resolver=resolver)
    new = await FakeSession(stack.memory).start()
    try:
        resolver.change(frozenset((stack.session.address, new.address)))
        await _ready(stack, 2)

        async def used() -> bool:
            await stack.client.get("/models")
            return new.calls["ListModels"] > 0

        await until(used)
        resolver.change(frozenset((new.address,)))
        await _ready(stack, 1)
        before = stack.session.calls["ListModels"]
        assert (await stack.client.get("/models")).status_code == 200
        assert stack.session.calls["ListModels"] == before
    finally:
        await new.stop()


async def test_a_draining_gateway_is_not_ready_and_makes_answers_still(
    start_stack: StartStack,
) -> None:
    stack = await start_stack(drain_delay_seconds=120)
    assert (await stack.client.get("/readyz")).status_code == 200
    draining = asyncio.create_task(stack.gateway.drain())
    await until(lambda: not stack.gateway.ready)
    async with httpx.AsyncClient(base_url=stack.url) as late:
        assert (await late.get("/readyz")).status_code == 503
        assert (await late.post("/chat", json={"message": "x"})).status_code == 201
    assert not draining.done()
    draining.cancel()
    await asyncio.wait({draining})


async def test_a_drain_ends_with_its_delay(start_stack: StartStack) -> None:
    stack = await start_stack(drain_delay_seconds=0.01)
    await asyncio.wait_for(stack.gateway.drain(), 5)
    assert not stack.gateway.ready


async def test_calls_go_on_when_a_replica_dies(start_stack: StartStack) -> None:
    stack = await start_stack(replicas=3)

    async def ask(number: int) -> int:
        if number == 10:
            await stack.session.stop()
        path = ("/models", "/chats")[number % 2]
        if number % 3:
            return (await stack.client.get(path)).status_code
        return (await stack.client.post("/chat", json={"message": "x"})).status_code

    statuses = [await ask(number) for number in range(60)]
    assert set(statuses) == {200, 201}


async def test_a_turn_lost_before_acceptance_is_tried_elsewhere_with_the_same_ids(
    start_stack: StartStack,
) -> None:
    script = Script()
    stack = await start_stack(replicas=2, script=script)

    def lose_the_first() -> None:
        script.before_accepted = None
        raise ServiceError(grpc.StatusCode.UNAVAILABLE, "unavailable", "connection reset")

    script.before_accepted = lose_the_first
    response = await stack.client.post("/chat", json={"message": "x"})
    assert response.status_code == 201, response.text
    asked = [request for name, request, _ in stack.memory.calls if name == "Complete"]
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert all(fake.calls["Complete"] == 1 for fake in stack.replicas)


def _once(script: Script, lose: Callable[[], None]) -> None:
    """Have the next turn lost before it is accepted."""

    def lost() -> None:
        script.before_accepted = None
        lose()
        raise ServiceError(grpc.StatusCode.UNAVAILABLE, "unavailable", "connection reset")

    script.before_accepted = lost


async def test_a_lost_turn_waits_for_another_replica_to_be_ready(
    start_stack: StartStack,
) -> None:
    script, resolver = Script(), ChangingResolver(frozenset())
    stack = await start_stack(replicas=1, script=script, resolver=resolver)
    new = await FakeSession(stack.memory).start()
    try:
        both = frozenset((stack.session.address, new.address))
        _once(script, lambda: resolver.change(both))
        response = await stack.client.post("/chat", json={"message": "x"})
        assert response.status_code == 201, response.text
        assert stack.session.calls["Complete"] == new.calls["Complete"] == 1
    finally:
        await new.stop()


async def test_a_lost_turn_goes_to_the_same_replica_once_its_connection_is_made_anew(
    start_stack: StartStack,
) -> None:
    script, resolver = Script(), ChangingResolver(frozenset())
    stack = await start_stack(replicas=0, resolver=resolver)
    only = await FakeSession(stack.memory, script).start()
    try:
        async with TcpProxy(only.address) as proxy:
            resolver.change(frozenset((proxy.address,)))
            await _ready(stack, 1)

            def cut() -> None:
                proxy.cut()
                proxy.heal()

            _once(script, cut)
            response = await stack.client.post("/chat", json={"message": "x"})
            assert response.status_code == 201, response.text
            assert only.calls["Complete"] == 2
    finally:
        await only.stop()


async def test_a_lost_turn_is_refused_as_it_was_lost_where_no_other_gets_ready(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READY_WAIT_SECONDS", 0.1)
    script = Script()
    stack = await start_stack(replicas=1, script=script)
    _once(script, lambda: None)
    response = await stack.client.post("/chat", json={"message": "x"})
    assert response.status_code == 503
    assert stack.session.calls["Complete"] == 1


async def _end_the_run(stack: Stack) -> None:
    """Bring the run to its end once somebody waits for it again."""
    await until(lambda: any(fake.calls["AttachRun"] for fake in stack.replicas))
    (run_id,) = stack.memory.runs
    stack.session.end_run(run_id, pb.RUN_STATE_COMPLETED)


async def test_a_broken_stream_is_attached_elsewhere_without_a_byte_twice(
    start_stack: StartStack,
) -> None:
    stack = await start_stack(replicas=2, script=Script(break_after=1))
    ending = asyncio.create_task(_end_the_run(stack))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        found = [event async for event in events(response)]
    assert "".join(e.data["text"] for e in found if e.name == "delta") == "".join(ANSWER)
    assert found[-1].name == "done"
    await ending
    request, _ = stack.memory.last("AttachRun")
    assert request.offset == len(ANSWER[0].encode())
    assert request.resumed
    # Not where it broke, though that one is ready too.
    assert not any(fake.calls["Complete"] and fake.calls["AttachRun"] for fake in stack.replicas)


async def test_a_broken_stream_is_attached_at_the_same_replica_where_it_is_the_only_one(
    start_stack: StartStack,
) -> None:
    stack = await start_stack(replicas=1, script=Script(break_after=1))
    ending = asyncio.create_task(_end_the_run(stack))
    response = await stack.client.post("/chat", json={"message": "x"})
    assert response.json()["message"]["content"] == "".join(ANSWER)
    assert stack.session.calls["AttachRun"] >= 1
    await ending


@pytest.mark.parametrize("state", [pb.RUN_STATE_COMPLETED, pb.RUN_STATE_FAILED])
async def test_a_killed_replicas_run_is_read_to_its_end_at_another(
    start_stack: StartStack, state: pb.RunState.ValueType
) -> None:
    gate = asyncio.Event()
    stack = await start_stack(replicas=2, script=Script(gate=gate))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        reader = events(response)
        run_id = (await anext(reader)).data["runID"]
        assert (await anext(reader)).data["text"] == ANSWER[0]
        making = next(fake for fake in stack.replicas if fake.calls["Complete"])
        other = next(fake for fake in stack.replicas if fake is not making)
        await making.stop()
        await until(lambda: other.calls["AttachRun"] > 0)
        problem = None
        if state == pb.RUN_STATE_FAILED:
            problem = pb.Problem(code="engine_lost", detail="gone")
        other.end_run(run_id, state, problem)
        rest = [event async for event in reader]
    if state == pb.RUN_STATE_FAILED:
        assert [event.name for event in rest] == ["failed"]
        assert rest[0].data["code"] == "engine_lost"
    else:
        assert [event.name for event in rest] == ["delta", "done"]
        assert rest[0].data["text"] == "".join(ANSWER[1:])
        assert rest[1].data["usage"]["promptTokens"] == 7
        assert rest[1].id == "end"


async def test_a_run_nobody_ends_fails_at_its_deadline(start_stack: StartStack) -> None:
    stack = await start_stack(script=Script(break_after=1), answer_margin_seconds=0.1)
    response = await stack.client.post(
        "/chat", json={"message": "x", "options": {"timeoutSeconds": 1}}
    )
    assert response.status_code == 504
    assert response.json()["code"] == "timed_out"


async def test_without_any_replica_it_says_so(start_stack: StartStack) -> None:
    stack = await start_stack(replicas=0)
    ready = await stack.client.get("/readyz")
    assert ready.status_code == 503
    assert (await stack.client.get("/healthz")).status_code == 200
    refused = await stack.client.post("/chat", json={"message": "x"})
    assert refused.status_code == 503
    assert refused.json()["code"] == "overloaded"
    assert refused.headers["retry-after"]


async def test_readiness_follows_the_replicas(stack: Stack) -> None:
    assert (await stack.client.get("/readyz")).status_code == 200
    stack.session.set_serving(False)
    await _ready(stack, 0)
    assert (await stack.client.get("/readyz")).status_code == 503
    stack.session.set_serving(True)
    await _ready(stack, 1)
    assert (await stack.client.get("/readyz")).status_code == 200


async def test_a_stopping_gateway_lets_a_stream_end(start_stack: StartStack) -> None:
    gate = asyncio.Event()
    stack = await start_stack(script=Script(gate=gate))
    async with stack.client.stream(
        "POST", "/chat", json={"message": "x", "stream": True}
    ) as response:
        reader = events(response)
        await anext(reader)
        stopping = asyncio.create_task(stack.gateway.stop(5.0))
        await until(lambda: not stack.gateway.ready)
        gate.set()
        assert [event.name async for event in reader][-1] == "done"
    await stopping


async def test_a_call_to_a_frozen_replica_is_made_at_another(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_gateway.clients.session.FIRST_TRY_SECONDS", 0.2)
    resolver = ChangingResolver(frozenset())
    stack = await start_stack(replicas=1, resolver=resolver)
    frozen = await FakeSession(stack.memory).start()
    try:
        async with TcpProxy(frozen.address) as proxy:
            resolver.change(frozenset((stack.session.address, proxy.address)))
            await _ready(stack, 2)
            proxy.stall()
            statuses = {(await stack.client.get("/models")).status_code for _ in range(12)}
            assert statuses == {200}
            proxy.heal()
    finally:
        await frozen.stop()


async def test_a_turn_at_a_replica_that_falls_silent_is_refused_where_no_other_gets_ready(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, resolver = Script(), ChangingResolver(frozenset())
    stack = await start_stack(replicas=0, resolver=resolver)
    silent = await FakeSession(stack.memory, script).start()
    try:
        async with TcpProxy(silent.address) as proxy:
            resolver.change(frozenset((proxy.address,)))
            await _ready(stack, 1)
            monkeypatch.setattr(session, "READY_WAIT_SECONDS", 0.1)
            script.before_accepted = proxy.stall
            refused = await stack.client.post("/chat", json={"message": "x"})
            assert refused.status_code == 503
            assert refused.json()["code"] == "overloaded"
            assert silent.calls["Complete"] == 1
            proxy.heal()
    finally:
        await silent.stop()
