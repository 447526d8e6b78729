"""More asked than the engines draw at a time: everything waits in turn, told where it stands."""

from __future__ import annotations

import asyncio

from e2e import flows
from support.poll import until
from support.stack import MakeStack

SMALL = {
    "PARLEY_INFERENCE_SIM_CONCURRENCY": "2",
    "PARLEY_INFERENCE_MAX_NUM_SEQS": "2",
    "PARLEY_INFERENCE_MAX_WAITING": "4",
}
ASKED = 12
MESSAGE = "[[sim:length tokens=40]] [[sim:slow itl=0.01]] Number {}"


async def test_twelve_wait_for_an_engine_of_two_and_all_are_answered(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(sessions=2, workers=1, env={"inference": SMALL})
    options = {"cache": "bypass"}

    async def ask(number: int) -> list[flows.Event]:
        async with flows.client(stack.url, user=f"user-{number % 3}") as http:
            return await flows.stream(http, "/chat", MESSAGE.format(number), options=options)

    answers = await asyncio.gather(*(ask(number) for number in range(ASKED)))
    waited = 0
    for events in answers:
        assert events[-1].name == "done", events[-1]
        assert flows.joined_text(events) == events[-1].data["message"]["content"]
        places = [event.data["position"] for event in events if event.name == "queued"]
        assert all(place >= 1 for place in places)
        waited += bool(places)
    # Requests that are judged at the same instant may all find room, so not a number.
    assert waited


async def test_a_users_share_is_told_with_429_and_retry_after(make_stack: MakeStack) -> None:
    env = {"inference": SMALL, "session": {"PARLEY_SESSION_MAX_QUEUED_RUNS_OF_USER": "2"}}
    stack = await make_stack(env=env)
    async with flows.client(stack.url) as http:
        body = {
            "message": "[[sim:length tokens=400]] [[sim:slow itl=0.05]] Hold.",
            "background": True,
            "options": {"cache": "bypass"},
        }
        accepted = []

        async def refused() -> bool:
            response = await http.post("/chat", json=body)
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


async def test_messages_wait_in_a_chat_and_are_answered_in_order(make_stack: MakeStack) -> None:
    stack = await make_stack(sessions=2)
    async with flows.client(stack.url) as http:
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
