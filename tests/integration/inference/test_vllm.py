"""The real engine: vLLM with SmolLM2-135M-Instruct, over gRPC; that of the platform's stack."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_devstack.stack import Stack
from parley_kit.rpc.status import from_rpc_error
from support.inference import Client, chat, connect
from support.stack import VLLM_MODEL as MODEL
from support.vllm import ask, port_of

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture
async def client(vllm_stack: Stack) -> AsyncIterator[Client]:
    plan = vllm_stack.plan("inference-1")
    async with connect(port_of(plan.grpc), port_of(plan.admin)) as connected:
        yield connected


async def test_a_question_is_answered_by_the_model(client: Client) -> None:
    before = await client.metric("vllm:generation_tokens_total")
    answer = await client.generate(ask("What is the capital of France?"))
    assert "Paris" in answer.text
    assert answer.started is not None
    assert answer.finished is not None
    assert answer.started.continuation == pb.CONTINUATION_SAMPLED
    assert answer.finished.finish_reason == pb.FINISH_REASON_STOP
    assert answer.finished.completion_tokens == len(answer.token_ids)
    assert await client.metric("vllm:generation_tokens_total") > before
    assert answer.started.first_token_seconds >= answer.started.queue_seconds >= 0


async def test_the_second_turn_of_a_chat_is_served_from_the_prefix_cache(client: Client) -> None:
    question = "Name three colours of the rainbow, and say in a sentence what each reminds you of."
    first = await client.generate(ask(question, cache_salt="a"))
    turns = chat(question, first.text, "Which of them is the warmest?")
    second = await client.generate(ask(messages=turns, cache_salt="a"))
    other = await client.generate(ask(messages=turns, cache_salt="b"))
    assert second.started is not None
    assert other.started is not None
    assert second.started.cached_prompt_tokens > 0
    assert other.started.cached_prompt_tokens == 0


@pytest.mark.parametrize(
    "messages",
    [
        chat("Hello"),
        chat("Hello", system="You answer in one word."),
        chat("a", "b", "c", system="s"),
        chat("  leading and trailing  \n", "line\n\n\nline\n", "\n", "", "done?"),
        chat("où est 東京 🙂?", "👩‍💻 ½ €", "<|im_end|> and <|im_start|>user"),
        chat("x" * 3000),
    ],
)
async def test_counted_tokens_are_those_that_the_engine_counts(
    client: Client, messages: list[pb.ChatMessage]
) -> None:
    counts = await client.stub.CountTokens(
        pb.CountTokensRequest(model=MODEL, messages=messages), timeout=30
    )
    alone = [
        await client.stub.CountTokens(
            pb.CountTokensRequest(model=MODEL, messages=[message]), timeout=30
        )
        for message in messages
    ]
    # A busy CPU reads the longest of them for a minute.
    answer = await client.generate(ask(messages=messages, max_tokens=1), timeout=180)
    assert answer.started is not None
    assert sum(counts.tokens) + counts.overhead_tokens == answer.started.prompt_tokens
    # ChatML is additive: a message counts the same in any chat.
    assert [count.tokens[0] for count in alone] == list(counts.tokens)


async def test_an_answer_ends_before_a_stop_string(client: Client) -> None:
    request = "Count from one to ten, as words, separated by commas."
    whole = await client.generate(ask(request, max_tokens=60))
    stop = whole.text[len(whole.text) // 2 :][:3]
    cut = await client.generate(ask(request, max_tokens=60, stop=[stop]))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finished is not None
    assert cut.finished.finish_reason == pb.FINISH_REASON_STOP
    await client.idle()


async def test_an_answer_goes_on_from_its_tokens(client: Client) -> None:
    request = "Write the word 東京 and the sign 🙂 three times each."
    whole = await client.generate(ask(request, max_tokens=48))
    kept = whole.chunks[: len(whole.chunks) // 2]
    known = [token_id for chunk in kept for token_id in chunk.token_ids]
    rest = await client.generate(ask(request, max_tokens=48, generated_token_ids=known))
    assert rest.started is not None
    assert whole.started is not None
    assert rest.finished is not None
    assert rest.started.prompt_tokens == whole.started.prompt_tokens
    assert rest.finished.completion_tokens == len(known) + len(rest.token_ids) <= 48
    sent = "".join(chunk.text for chunk in kept)
    assert rest.chunks[0].offset == len(sent.encode())


async def test_an_answer_with_penalties_is_not_continued(client: Client) -> None:
    answer = await client.generate(ask("Hi", presence_penalty=0.5, max_tokens=4))
    assert answer.started is not None
    assert answer.started.continuation == pb.CONTINUATION_NONE
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(ask("Hi", presence_penalty=0.5, generated_token_ids=[1]))
    assert from_rpc_error(failure.value).code == "continuation_unsupported"


async def test_an_answer_follows_a_schema(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    answer = await client.generate(
        ask("Is Paris a capital? Answer in JSON.", json_schema=json.dumps(schema), max_tokens=100)
    )
    assert set(json.loads(answer.text)) == {"city", "capital"}


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "nonsense"}',
        '{"$ref": "#/missing"}',
        '{"type": "string", "pattern": "("}',
        # Within bounds, and more than this compiler follows.
        '{"type": "integer", "multipleOf": 3}',
        '{"type": "array", "items": {"type": "string"}, "uniqueItems": true}',
    ],
)
async def test_a_schema_that_cannot_be_followed_is_refused_before_it_is_accepted(
    client: Client, schema: str
) -> None:
    options = pb.SamplingOptions(max_tokens=8, temperature=1.0, top_p=1.0, json_schema=schema)
    asked = pb.CountTokensRequest(model=MODEL, messages=chat("x"), sampling=options)
    with pytest.raises(grpc.aio.AioRpcError) as judged:
        await client.stub.CountTokens(asked, timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(ask("x", json_schema=schema))
    for error in (judged, failure):
        refusal = from_rpc_error(error.value)
        assert refusal.code == "invalid_request"
        assert [field.field for field in refusal.fields] == ["sampling.json_schema"]
        assert "cannot be compiled" in refusal.fields[0].message
    assert (await client.generate(ask("Hi", max_tokens=2))).finished is not None


async def test_the_same_seed_draws_the_same_answer(client: Client) -> None:
    # The first one fills the prefix cache: a prompt computed otherwise rounds otherwise.
    texts = [
        (await client.generate(ask("Tell a story.", temperature=1.0, seed=seed))).text
        for seed in (3, 2**64 - 1, 2**64 - 1, 3)
    ]
    assert texts[1] == texts[2] != texts[3]


async def test_tokens_that_the_model_does_not_have_are_refused(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(ask("x", generated_token_ids=[49152]))
    assert from_rpc_error(failure.value).code == "invalid_request"


async def test_ten_of_forty_leave_and_the_rest_finish(client: Client) -> None:
    calls = [
        client.stub.Generate(
            ask(f"Tell a long story about the number {i}.", max_tokens=40), timeout=120
        )
        for i in range(40)
    ]

    async def read(call: object) -> pb.GenerationFinished | None:
        finished = None
        async for message in call:  # type: ignore[attr-defined]
            if message.HasField("finished"):
                finished = message.finished
        return finished

    reading = [asyncio.ensure_future(read(call)) for call in calls]
    # A model on a CPU reads forty prompts before it draws five first tokens.
    await client.load_until(lambda load: load.running > 4, timeout=60)
    for call in calls[::4]:
        call.cancel()
    results = await asyncio.gather(*reading, return_exceptions=True)
    cancelled = [result for result in results if isinstance(result, BaseException)]
    assert len(cancelled) == 10
    assert all(isinstance(result, asyncio.CancelledError) for result in cancelled)
    assert all(r.completion_tokens for r in results if isinstance(r, pb.GenerationFinished))
    await client.idle()
    answer = await client.generate(ask("Hi", max_tokens=1))
    assert answer.finished is not None
    assert await client.metric("vllm:num_requests_running") == 0
    assert await client.metric("vllm:num_requests_waiting") == 0


async def test_a_deadline_aborts_the_request_in_the_engine(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(ask("Write a very long story.", max_tokens=1500), timeout=1.0)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await client.idle()
