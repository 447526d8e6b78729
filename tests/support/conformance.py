"""What every engine does, whatever it is: behaviours, and the table of who does what and how.

A behaviour is a coroutine that fails if an engine breaks the contract, and returns the word for
what the contract leaves open (`exact`, `refused`, …), for the table in reports/engines.md.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.rpc.status import from_rpc_error
from support.inference import Answer, Client, generate_request

Behaviour = Callable[["Subject", Client], Awaitable[str]]
BEHAVIOURS: dict[str, Behaviour] = {}

QUESTION = "Tell me a story about a lighthouse, a storm and a cat."
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
_CONTINUATIONS = {
    pb.CONTINUATION_EXACT: "exact",
    pb.CONTINUATION_SAMPLED: "sampled",
    pb.CONTINUATION_NONE: "none",
}


@dataclass(frozen=True)
class Subject:
    """An engine under test. ``slots``: requests it takes at a time."""

    name: str
    model: str
    context: int
    slots: int = 16
    seconds: float = 60.0

    def ask(self, text: str = QUESTION, **options: Any) -> pb.GenerateRequest:
        """A request for its model."""
        return generate_request(text, **({"model": self.model} | options))


def behaviour(title: str) -> Callable[[Behaviour], Behaviour]:
    """Put a behaviour into the suite."""

    def add(function: Behaviour) -> Behaviour:
        BEHAVIOURS[title] = function
        return function

    return add


async def _code(call: Awaitable[object]) -> str:
    """The code of a refusal; empty: there was none."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code
    return ""


async def _answer(subject: Subject, client: Client, **options: Any) -> Answer:
    return await client.generate(subject.ask(**options), timeout=subject.seconds)


@behaviour("a whole answer, its tokens counted once")
async def whole(subject: Subject, client: Client) -> str:
    answer = await _answer(subject, client, max_tokens=24)
    assert answer.text
    assert answer.started is not None
    assert answer.finished is not None
    assert answer.finished.prompt_tokens > 0
    assert 0 < answer.finished.completion_tokens <= 24
    assert answer.started.model_revision
    return "yes"


@behaviour("ends at max_tokens")
async def length(subject: Subject, client: Client) -> str:
    answer = await _answer(subject, client, max_tokens=7)
    assert answer.finished is not None
    assert answer.finished.finish_reason == pb.FINISH_REASON_LENGTH
    assert answer.finished.completion_tokens == 7
    return "yes"


@behaviour("ends before a stop string")
async def stop(subject: Subject, client: Client) -> str:
    undisturbed = (await _answer(subject, client, max_tokens=24)).text
    middle = len(undisturbed) // 2
    wanted = undisturbed[middle : middle + 3]
    answer = await _answer(subject, client, max_tokens=24, stop=[wanted])
    assert wanted not in answer.text
    assert answer.finished is not None
    assert answer.finished.finish_reason == pb.FINISH_REASON_STOP
    await client.idle()
    return "yes"


@behaviour("the same seed, the same answer")
async def seeded(subject: Subject, client: Client) -> str:
    options = {"max_tokens": 16, "temperature": 1.0, "seed": 11}
    # The first fills the prefix cache: a prompt computed otherwise may round otherwise.
    await _answer(subject, client, **options)
    texts = [(await _answer(subject, client, **options)).text for _ in range(2)]
    other = (await _answer(subject, client, **(options | {"seed": 12}))).text
    if texts[0] != texts[1]:
        return "no"
    return "yes" if other != texts[0] else "seed ignored"


async def _judged(subject: Subject, client: Client, **sampling: Any) -> str:
    """The code with which options are refused before anything is accepted."""
    options = pb.SamplingOptions(max_tokens=8, temperature=1.0, top_p=1.0, **sampling)
    message = pb.ChatMessage(role=pb.ROLE_USER, content="?")
    request = pb.CountTokensRequest(model=subject.model, messages=[message], sampling=options)
    return await _code(client.stub.CountTokens(request, timeout=30))


@behaviour("top_k")
async def top_k(subject: Subject, client: Client) -> str:
    code = await _judged(subject, client, top_k=3)
    if code:
        assert code == "invalid_request"
        return "refused"
    assert (await _answer(subject, client, max_tokens=4, top_k=3)).finished is not None
    return "yes"


@behaviour("penalties")
async def penalties(subject: Subject, client: Client) -> str:
    code = await _judged(subject, client, presence_penalty=0.5)
    if code:
        assert code == "invalid_request"
        return "refused"
    assert (await _answer(subject, client, max_tokens=4, presence_penalty=0.5)).finished
    return "yes"


@behaviour("a JSON schema is followed, or refused before acceptance")
async def schema(subject: Subject, client: Client) -> str:
    text = json.dumps(SCHEMA)
    code = await _judged(subject, client, json_schema=text)
    if code:
        assert code == "invalid_request"
        return "refused"
    answer = await _answer(subject, client, max_tokens=64, json_schema=text)
    assert set(json.loads(answer.text)) == {"ok"}
    return "followed"


@behaviour("tokens are counted")
async def counted(subject: Subject, client: Client) -> str:
    request = subject.ask("où est 東京 🙂? Say it in one word.", max_tokens=2)
    counts = await client.stub.CountTokens(
        pb.CountTokensRequest(model=subject.model, messages=request.messages), timeout=30
    )
    answer = await client.generate(request, timeout=subject.seconds)
    assert answer.finished is not None
    if counts.tokenizer_id.startswith("estimate:"):
        return "estimated"
    assert sum(counts.tokens) + counts.overhead_tokens == answer.finished.prompt_tokens
    return "exactly"


@behaviour("too long a prompt is refused")
async def too_long(subject: Subject, client: Client) -> str:
    code = await _code(client.generate(subject.ask("word " * subject.context, max_tokens=8)))
    assert code == "context_too_long"
    return "yes"


@behaviour("another model is refused")
async def other_model(subject: Subject, client: Client) -> str:
    assert await _code(client.generate(subject.ask(model="no-such-model"))) == "model_not_found"
    return "yes"


@behaviour("continuing a broken-off answer")
async def continued(subject: Subject, client: Client) -> str:
    undisturbed = await _answer(subject, client, max_tokens=24)
    assert undisturbed.started is not None
    kept = undisturbed.chunks[: max(1, len(undisturbed.chunks) // 2)]
    known = [token_id for chunk in kept for token_id in chunk.token_ids]
    request = subject.ask(max_tokens=24, generated_token_ids=known)
    kind = _CONTINUATIONS[undisturbed.started.continuation]
    if kind == "none":
        assert await _code(client.generate(request)) == "continuation_unsupported"
        return kind
    rest = await client.generate(request, timeout=subject.seconds)
    sent = "".join(chunk.text for chunk in kept)
    assert not rest.chunks or rest.chunks[0].offset == len(sent.encode())
    assert rest.finished is not None
    assert undisturbed.finished is not None
    if await counted(subject, client) == "exactly":
        assert rest.finished.prompt_tokens == undisturbed.finished.prompt_tokens
    if kind == "exact":
        assert sent + rest.text == undisturbed.text
    return kind


@behaviour("leaving frees the engine, others go on")
async def cancelled(subject: Subject, client: Client) -> str:
    leaving = [
        client.stub.Generate(subject.ask(f"{i} {QUESTION}", max_tokens=200), timeout=60)
        for i in range(3)
    ]
    staying = asyncio.ensure_future(_answer(subject, client, max_tokens=32))
    await client.load_until(lambda load: load.running + load.waiting >= 2)
    for call in leaving:
        call.cancel()
    began = time.monotonic()
    await client.load_until(lambda load: load.running + load.waiting <= 1)
    took = time.monotonic() - began
    answer = await staying
    assert answer.finished is not None
    assert answer.finished.completion_tokens > 0
    await client.idle()
    return f"in {1000 * took:.0f} ms"


@behaviour("a deadline frees the engine")
async def deadline(subject: Subject, client: Client) -> str:
    code = await _code(client.generate(subject.ask(max_tokens=1500), timeout=0.3))
    assert code == "timed_out"
    await client.idle()
    return "yes"


@behaviour("as many at a time as it takes, and more")
async def many(subject: Subject, client: Client) -> str:
    answers = await asyncio.gather(
        *(
            _answer(subject, client, text=f"{i} {QUESTION}", max_tokens=12)
            for i in range(subject.slots + 4)
        )
    )
    assert all(answer.finished and answer.finished.completion_tokens for answer in answers)
    await client.idle()
    return f"{len(answers)}"


class ConformanceTable:
    """Engines × behaviours, kept in a folder so that runs of parts of the suite add to it."""

    def __init__(self, folder: Path) -> None:
        self._json = folder / "engines.json"
        self._page = folder / "engines.md"
        folder.mkdir(exist_ok=True)

    def note(self, engine: str, title: str, word: str) -> None:
        """Fill in a cell."""
        table = json.loads(self._json.read_text()) if self._json.exists() else {}
        table.setdefault(engine, {})[title] = word
        self._json.write_text(json.dumps(table, indent=1, ensure_ascii=False))
        self._page.write_text(self.markdown(table))

    @staticmethod
    def markdown(table: dict[str, dict[str, str]]) -> str:
        """The table as a page."""
        engines = sorted(table)
        lines = [
            "# Engines × behaviours",
            "",
            f"| behaviour | {' | '.join(engines)} |",
            "|---|" + "---|" * len(engines),
        ]
        lines += [
            f"| {title} | {' | '.join(table[engine].get(title, '') for engine in engines)} |"
            for title in BEHAVIOURS
        ]
        return "\n".join(lines) + "\n"
