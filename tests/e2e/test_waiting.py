"""More asked than the engines draw at a time: everything waits in turn, told where it stands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support.poll import until
from support.stack import LendMongoDB, running, sim_config

SMALL = {
    "PARLEY_INFERENCE_SIM_CONCURRENCY": "2",
    "PARLEY_INFERENCE_MAX_NUM_SEQS": "2",
    "PARLEY_INFERENCE_MAX_WAITING": "4",
}
# What fills an engine of two: it is given a quarter more than it batches.
FILLING = 3
ASKED = 12
ASKERS = 3
# As many of one user may wait as one of these asks.
SHARE = {"PARLEY_SESSION_MAX_QUEUED_RUNS_OF_USER": str(ASKED // ASKERS)}
MESSAGE = "[[sim:length tokens=40]] [[sim:slow itl=0.01]] Number {}"
HOLD = {
    "message": "[[sim:length tokens=400]] [[sim:slow itl=1]] Hold.",
    "background": True,
    "options": {"cache": "bypass"},
}
ROOM = re.compile(r"^parley_session_fleet_room (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB) -> Iterator[Stack]:
    """A small engine before two sessions and a worker."""
    folder = tmp_path_factory.mktemp("waiting")
    env = {"inference": SMALL, "session": SHARE}
    with lend_mongodb() as lent:
        yield from running(Stack(sim_config(folder, sessions=2, workers=1, env=env, **lent)))


async def room(stack: Stack) -> list[float]:
    """The room that each replica sees in the fleet."""
    shown = []
    async with httpx.AsyncClient() as http:
        for name in (*stack.names_of("session"), *stack.names_of("worker")):
            text = (await http.get(f"http://{stack.plan(name).admin}/metrics")).text
            shown.append(float(ROOM.findall(text)[0]))
    return shown


async def test_twelve_wait_for_an_engine_of_two_and_all_are_answered(stack: Stack) -> None:
    told: dict[int, list[flows.Event]] = {number: [] for number in range(ASKED)}

    async def ask(number: int) -> None:
        body = {"message": MESSAGE.format(number), "stream": True, "options": {"cache": "bypass"}}
        async with (
            flows.client(stack.url, user=f"user-{number % ASKERS}") as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            assert response.status_code == 201, await response.aread()
            async for event in flows.events(response):
                told[number].append(event)

    def places(number: int) -> list[int]:
        return [event.data["position"] for event in told[number] if event.name == "queued"]

    async with flows.client(stack.url, user="holder") as holder:
        held = [(await holder.post("/chat", json=HOLD)).json()["runID"] for _ in range(FILLING)]

        async def is_full() -> bool:
            return not any(await room(stack))

        await until(is_full, timeout=20, what="a full engine, and everybody knows")
        asking = [asyncio.create_task(ask(number)) for number in told]
        await until(lambda: all(map(places, told)), timeout=20, what="all are told their place")
        assert sorted(places(number)[0] for number in told)[-1] == ASKED
        for run in held:
            assert (await holder.post(f"/runs/{run}/cancel")).status_code == 202
    await asyncio.gather(*asking)
    for number, events in told.items():
        assert events[-1].name == "done", events[-1]
        assert flows.joined_text(events) == events[-1].data["message"]["content"]
        assert places(number) == sorted(places(number), reverse=True)


async def test_a_users_share_is_told_with_429_and_retry_after(stack: Stack) -> None:
    async with flows.client(stack.url) as http:
        accepted = []

        async def refused() -> bool:
            response = await http.post("/chat", json=HOLD)
            if response.status_code == 202:
                accepted.append(response.json()["runID"])
                return False
            assert response.status_code == 429, response.text
            assert response.json()["code"] == "queue_full"
            assert int(response.headers["Retry-After"]) >= 1
            return True

        await until(refused, timeout=20, what="a refusal")
        for run in accepted:
            assert (await http.post(f"/runs/{run}/cancel")).status_code == 202


async def test_messages_wait_in_a_chat_and_are_answered_in_order(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="waits") as http:
        first = await flows.ask(http, "/chat", "Begin.")
        path = f"/chat/{first['chatID']}/completion"
        slow = "[[sim:length tokens=60]] [[sim:slow itl=0.02]] Number 0"
        tasks = [asyncio.create_task(flows.stream(http, path, slow))]
        await until(_busy(http, first["chatID"], 1), what="a busy chat")
        for number in range(1, 4):
            asked = flows.stream(http, path, f"Number {number}", options={"whenBusy": "queue"})
            tasks.append(asyncio.create_task(asked))
            await until(_busy(http, first["chatID"], number + 1), what="accepted")
        streams = await asyncio.gather(*tasks)
        for number, events in enumerate(streams):
            assert events[-1].name == "done", events[-1]
            places = [event.data["position"] for event in events if event.name == "queued"]
            assert places == sorted(places, reverse=True)
            assert bool(places) == (number > 0)
        stored = (await http.get(f"/chat/{first['chatID']}")).json()
        asked_in_order = [m["content"] for m in stored["messages"][2::2]]
        assert asked_in_order == [slow, "Number 1", "Number 2", "Number 3"]
        assert stored["messageCount"] == 10


def _busy(http, chat_id: str, turns: int):
    async def busy() -> bool:
        chat = (await http.get(f"/chat/{chat_id}")).json()
        questions = [m for m in chat["messages"] if m["role"] == "user"]
        return "activeRun" in chat and len(questions) == 1 + turns

    return busy
