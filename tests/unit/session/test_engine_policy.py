"""What a tenant may not be answered by is refused before anything is stored."""

from dataclasses import replace
from typing import Any

import pytest

from parley_kit.errors import ServiceError
from parley_session.domain.model import HistoryStrategy, Principal, RunState
from parley_session.fleet.policy import EnginePolicy, Engines
from parley_session.runs.asking import NewChat
from support.session_fakes import model
from support.session_world import ALICE, World, asking

OWN_ONLY = EnginePolicy(of_tenants={ALICE.tenant: Engines.OWN})
BOB = Principal("another", "bob")


def test_tenants_that_are_not_named_have_the_default() -> None:
    hosted = replace(model(), external=True)
    policy = EnginePolicy(Engines.OWN, {"free": Engines.ANY})
    assert policy.allows("free", hosted)
    assert not policy.allows("anybody", hosted)
    assert policy.allows("anybody", model())
    assert EnginePolicy().allows("anybody", hosted)


async def test_nothing_is_stored_of_what_is_refused(world: World) -> None:
    world.fleet.served = {"sim": replace(model(), external=True)}
    world.fleet.policy = OWN_ONLY
    replica = world.replica()
    asked = asking()
    with pytest.raises(ServiceError) as refused:
        await replica.start(asked)
    assert refused.value.code == "model_not_allowed"
    with pytest.raises(ServiceError) as refused:
        await replica.session.servicer._chats.create(
            ALICE, asked.chat_id, NewChat(title="", system="", model="sim", ttl_seconds=0)
        )
    assert refused.value.code == "model_not_allowed"
    assert await world.store.get_chat(ALICE, asked.chat_id) is None
    assert world.fleet.draws == []
    assert world.fleet.counted == []
    # Another tenant is answered.
    text, _ = await replica.complete(asking(), BOB)
    assert text == world.fleet.text


async def test_a_chat_that_was_allowed_before_takes_no_further_turn(world: World) -> None:
    replica = world.replica()
    first = asking()
    await replica.complete(first)
    await replica.quiet()
    before = await world.chat(first.chat_id)
    world.fleet.served = {"sim": replace(model(), external=True)}
    world.fleet.policy = OWN_ONLY
    with pytest.raises(ServiceError) as refused:
        await replica.start(asking("More", chat=first.chat_id))
    assert refused.value.code == "model_not_allowed"
    assert await world.chat(first.chat_id) == before
    assert len(world.fleet.draws) == 1


async def test_an_answer_that_waited_is_not_drawn_where_it_is_forbidden_by_then(
    world: World,
) -> None:
    replica = world.replica()
    world.fleet.full = True
    asked = asking()
    await replica.start(asked)
    world.fleet.full = False
    world.fleet.served = {"sim": replace(model(), external=True)}
    world.fleet.policy = OWN_ONLY
    await replica.dispatch()
    await replica.quiet()
    run = await world.run(asked.run_id)
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.code == "model_not_allowed"
    assert world.fleet.draws == []


async def test_a_tenant_waits_for_its_own_engines_though_others_have_room(world: World) -> None:
    replica = world.replica()
    world.fleet.full_for = {ALICE.tenant}
    waiting = asking()
    await replica.start(waiting)
    assert (await world.run(waiting.run_id)).state is RunState.QUEUED
    # What came first goes on waiting, and holds up nobody else.
    await replica.start(asking(), BOB)
    for _ in range(4):
        await replica.dispatch()
    await replica.quiet()
    assert {draw.tenant for draw in world.fleet.draws} == {BOB.tenant}
    world.fleet.full_for = set()
    await replica.dispatch()
    await replica.quiet()
    assert (await world.run(waiting.run_id)).state is RunState.COMPLETED


async def test_engines_are_asked_for_in_the_tenants_own_name_alone(world: World) -> None:
    replica = world.replica()
    world.fleet.served = {"sim": model(context_length=600)}
    given: dict[str, Any] = {"history": HistoryStrategy.SUMMARIZE, "max_tokens": 50, "cache": None}
    first = asking("word " * 60, **given)
    await replica.complete(first)
    for _ in range(13):
        await replica.quiet()
        await replica.complete(asking("word " * 60, chat=first.chat_id, **given))
    await replica.quiet()
    assert any(draw.request_id.endswith(":summary") for draw in world.fleet.draws)
    assert world.fleet.tenants == {ALICE.tenant}
