"""Global scope: the first question of a chat may be answered by another user's answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley_session.domain.model import (
    CacheInfo,
    CacheMode,
    CacheStatus,
    HistoryStrategy,
    Principal,
    Rating,
)
from parley_session.runs.asking import Completion, NewChat
from support.joined_cache import JoinedCache
from support.meaning import semantic_world
from support.poll import until
from support.session_world import ALICE, BOB, Replica, World, asking

EVE = Principal("acme", "eve")
PERSONAL = "What helps against my symptoms?"


async def told(replica: Replica, asked: Completion, principal: Principal) -> CacheInfo:
    _, ended = await replica.complete(asked, principal)
    await replica.quiet()
    assert ended.run.cache is not None
    return ended.run.cache


@contextlib.asynccontextmanager
async def joined(least_askers: int = 3) -> AsyncIterator[tuple[World, Replica]]:
    """A replica in global scope before a real cache."""
    async with semantic_world(least_askers=least_askers) as cache:
        world = World()
        world.cache = JoinedCache(cache.cache)  # type: ignore[assignment]
        try:
            yield world, world.replica(cache_scope="global")
        finally:
            await world.close()


async def test_in_user_scope_nothing_is_shared(world: World) -> None:
    replica = world.replica()
    await replica.complete(asking("Why?"), ALICE)
    assert (await told(replica, asking("Why?"), BOB)).status is CacheStatus.MISS
    assert not any(query.shared for query in world.cache.lookups)


async def test_only_the_first_question_of_a_chat_is_shared(world: World) -> None:
    replica = world.replica(cache_scope="global")
    first = asking("Why?", history_turns=0)
    await replica.complete(first, ALICE)
    assert (await told(replica, asking("Why?"), BOB)).status is CacheStatus.EXACT
    assert [query.shared for query in world.cache.lookups[-1:]] == [True]
    # Not even where nothing of what was said before is sent along.
    await replica.complete(asking("Why?", chat=first.chat_id, new=False, history_turns=0), ALICE)
    assert not world.cache.lookups[-1].shared
    assert world.cache.lookups[-1].user == "alice"


async def test_what_is_personal_stays_the_users_own(world: World) -> None:
    world.cache.personal = {PERSONAL}
    replica = world.replica(cache_scope="global")
    assert (await told(replica, asking(PERSONAL), ALICE)).status is CacheStatus.MISS
    assert (await told(replica, asking(PERSONAL), ALICE)).status is CacheStatus.EXACT
    assert (await told(replica, asking(PERSONAL), BOB)).status is CacheStatus.MISS
    assert not any(query.shared for query in world.cache.entries)


async def test_an_answer_that_is_personal_stays_the_users_own(world: World) -> None:
    world.cache.personal = {world.fleet.text}
    world.cache.lease = "lease"
    replica = world.replica(cache_scope="global")
    await told(replica, asking("Why?"), ALICE)
    [(query, answer)] = world.cache.entries.items()
    assert (query.shared, query.user, answer.lease) == (False, "alice", "")


async def test_refreshing_offers_the_answer_for_all_and_bypassing_for_nobody() -> None:
    async with joined(least_askers=1) as (_, replica):
        refreshed = await told(replica, asking("Why?", cache=CacheMode.REFRESH), ALICE)
        assert refreshed.status is CacheStatus.MISS
        assert (await told(replica, asking("Why?"), BOB)).status is CacheStatus.EXACT
        await told(replica, asking("How?", cache=CacheMode.BYPASS), ALICE)
        assert (await told(replica, asking("How?"), BOB)).status is CacheStatus.MISS


async def test_an_answer_is_shared_once_three_asked_and_no_more_once_rated_down() -> None:
    async with joined() as (world, replica):
        source = asking("Why do herons stand still?")
        assert (await told(replica, source, ALICE)).reason == "not_found"
        second = await told(replica, asking("Why do herons stand still?"), BOB)
        assert (second.status, second.reason) == (CacheStatus.MISS, "too_few_askers")
        copy = asking("Why do herons stand still?")
        assert (await told(replica, copy, EVE)).status is CacheStatus.EXACT
        # Bob's answer took the place of Alice's; Eve rates her copy of it down.
        message = (await world.messages(copy.chat_id, EVE))[1]
        assert message.source is not None
        chats = replica.session.servicer._chats
        await chats.rate(EVE, copy.chat_id, message.seq, Rating.DOWN)
        later = Principal("acme", "mallory")
        gone = await told(replica, asking("Why do herons stand still?"), later)
        assert gone.status is CacheStatus.MISS

        # Whose answer it was shares no more; who rated it does.
        async def flagged() -> bool:
            info = await told(replica, asking("What do storks eat?", cache=CacheMode.REFRESH), BOB)
            assert info.status is CacheStatus.MISS
            found = [
                (await told(replica, asking("What do storks eat?"), Principal("acme", name))).status
                for name in ("u1", "u2")
            ]
            return CacheStatus.EXACT not in found

        await until(flagged)


async def test_whose_chat_is_deleted_shares_nothing_from_it() -> None:
    async with joined(least_askers=1) as (_, replica):
        source = asking("Why do herons stand still?")
        await told(replica, source, ALICE)
        await replica.delete(source.chat_id, ALICE)
        found = await told(replica, asking("Why do herons stand still?"), BOB)
        assert found.status is CacheStatus.MISS


@pytest.mark.parametrize("question", [PERSONAL, "What is the weather today?"])
async def test_the_caches_refusals_hold(question: str) -> None:
    async with joined(least_askers=1) as (_, replica):
        assert (await told(replica, asking(question), ALICE)).status is CacheStatus.MISS
        assert (await told(replica, asking(question), BOB)).status is CacheStatus.MISS


NAMES = st.sampled_from(["a", "b", "ab"])
ASKED = st.tuples(
    st.builds(Principal, NAMES, NAMES),
    st.sampled_from(["Why?", "why ?", "Why not?", PERSONAL]),
    st.sampled_from(["be brief", "be long"]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from(HistoryStrategy),
    st.integers(0, 2),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ASKED, min_size=2, max_size=6), st.integers(1, 3))
def test_no_answer_crosses_a_key_or_comes_before_enough_users_asked(
    steps: list[tuple[Principal, str, str, float, HistoryStrategy, int]], least: int
) -> None:
    """Tenants, users, options, system prompts and histories at random, in global scope."""

    async def go() -> None:
        async with joined(least_askers=least) as (world, replica):
            # By the answer's message: whose it is, what it depends on, and whether it is a first.
            made: dict[str, tuple[Principal, object, bool]] = {}
            askers: dict[object, set[str | None]] = {}
            for who, question, system, temperature, history, earlier in steps:
                new: NewChat | None = NewChat("", system, "", 0)
                chat = asking().chat_id
                said: list[str] = []
                for turn in [f"Earlier {number}." for number in range(earlier)] + [question]:
                    asked = asking(
                        turn, chat=chat, new=new or False, history=history, temperature=temperature
                    )
                    asked = replace(asked, options=replace(asked.options, seed=None))
                    new = None
                    info = await told(replica, asked, who)
                    answer = (await world.messages(chat, who))[-1]
                    words = " ".join(re.findall(r"\w+", turn.lower()))
                    depends = (who.tenant, system, temperature, history, tuple(said), words)
                    askers.setdefault(depends, set()).add(who.user)
                    if answer.source is None:
                        assert info.status is CacheStatus.MISS
                        made[answer.id] = (who, depends, not said)
                    else:
                        source, same, first = made[answer.source]
                        assert same == depends
                        if source != who:
                            assert first
                            assert not said
                            assert turn != PERSONAL
                            assert len(askers[depends]) >= least
                    said.append(turn)

    asyncio.run(go())
