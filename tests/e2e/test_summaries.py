"""A long chat with `history: summarize`, in a small window."""

from __future__ import annotations

from e2e import flows
from support.poll import until
from support.stack import MakeStack


async def test_old_turns_are_folded_and_the_chat_goes_on(make_stack: MakeStack) -> None:
    stack = await make_stack(
        sessions=2, env={"inference": {"PARLEY_INFERENCE_MAX_MODEL_LEN": "512"}}
    )
    options = {"history": "summarize", "maxTokens": 48, "cache": "bypass"}
    async with flows.client(stack.url) as http:
        first = await flows.ask(http, "/chat", "Begin. " + "word " * 20, options=options)
        path = f"/chat/{first['chatID']}/completion"

        async def summarised() -> bool:
            answer = await flows.ask(http, path, "More. " + "word " * 20, options=options)
            assert answer["message"]["finishReason"] in ("stop", "length")
            assert answer["context"]["strategy"] == "summarize"
            return bool(answer["context"]["summaryUsed"])

        await until(summarised, timeout=60, what="a summary that is used")
        stored = (await http.get(f"/chat/{first['chatID']}?limit=200")).json()
        assert stored["messageCount"] == len(stored["messages"])
