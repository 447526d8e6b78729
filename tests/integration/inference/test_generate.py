"""Answers over real gRPC, on the simulator: streaming, stop, continuation, usage."""

import asyncio

import grpc
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_kit.rpc.status import from_rpc_error
from support.inference import Answer, Client, chat, generate_request, sim_replica

pytestmark = pytest.mark.integration


async def refused(
    client: Client, request: pb.GenerateRequest, into: Answer | None = None
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(request, into)
    return failure.value.code(), from_rpc_error(failure.value).code


async def test_an_answer_is_streamed_whole_and_says_what_it_is() -> None:
    async with sim_replica() as (_, client):
        answer = await client.generate(generate_request("hello", max_tokens=100))
    assert answer.started is not None
    assert answer.finished is not None
    assert answer.text.startswith("[sim] ")
    assert answer.started.continuation == pb.CONTINUATION_EXACT
    assert answer.started.model_revision == "1"
    assert answer.finished.finish_reason == pb.FINISH_REASON_STOP
    assert answer.finished.completion_tokens == len(answer.token_ids) == 64
    assert answer.finished.prompt_tokens == answer.started.prompt_tokens > 0


async def test_the_first_token_leaves_alone_and_the_rest_together() -> None:
    async with sim_replica(coalesce_seconds=1.0, sim_itl=0.02) as (_, client):
        answer = await client.generate(generate_request(max_tokens=10))
    assert len(answer.chunks[0].token_ids) == 1
    assert len(answer.chunks) == 2


async def test_tokens_leave_one_by_one_where_coalescing_is_off() -> None:
    async with sim_replica(coalesce_seconds=0.0, sim_itl=0.002) as (_, client):
        answer = await client.generate(generate_request(max_tokens=30))
    assert len(answer.chunks) > 10


async def test_an_answer_of_the_greatest_length_ends_by_length() -> None:
    async with sim_replica(sim_answer_tokens=0) as (_, client):
        answer = await client.generate(generate_request(max_tokens=10))
    assert answer.finished is not None
    assert answer.finished.finish_reason == pb.FINISH_REASON_LENGTH
    assert len(answer.token_ids) == 10


async def test_an_answer_ends_before_a_stop_string() -> None:
    async with sim_replica() as (_, client):
        whole = await client.generate(generate_request("tell me"))
        stop = whole.text[20:24]
        cut = await client.generate(generate_request("tell me", stop=[stop]))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finished is not None
    assert cut.finished.finish_reason == pb.FINISH_REASON_STOP
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]


async def test_the_same_seed_says_the_same_and_another_one_something_else() -> None:
    async with sim_replica() as (_, client):
        texts = [
            (await client.generate(generate_request(text, seed=seed))).text
            for text, seed in (("a", 1), ("b", 1), ("a", 2))
        ]
        unseeded = [(await client.generate(generate_request(text))).text for text in "aab"]
    assert texts[0] == texts[1] != texts[2]
    assert unseeded[0] == unseeded[1] != unseeded[2]


async def test_a_second_turn_finds_the_first_one_in_the_prefix_cache() -> None:
    async with sim_replica() as (_, client):
        question = "a question of some length, " * 10
        first = await client.generate(generate_request(question, cache_salt="a"))
        turns = chat(question, first.text, "and then?")
        second = await client.generate(generate_request(messages=turns, cache_salt="a"))
        other = await client.generate(generate_request(messages=turns, cache_salt="b"))
    assert first.started is not None
    assert second.started is not None
    assert other.started is not None
    assert first.started.cached_prompt_tokens == 0
    assert second.started.cached_prompt_tokens >= first.started.prompt_tokens // 16 * 16
    assert other.started.cached_prompt_tokens == 0


@pytest.mark.parametrize("stop", [[], [" the"], [". "]])
async def test_an_answer_continued_after_every_token_equals_the_undisturbed_one(
    stop: list[str],
) -> None:
    async with sim_replica() as (_, client):
        request = generate_request("continue me", stop=stop, max_tokens=64, seed=11)
        whole = await client.generate(request)
        assert whole.started is not None
        for known in range(1, len(whole.token_ids) + 1):
            rest = await client.generate(
                generate_request(
                    "continue me",
                    stop=stop,
                    max_tokens=64,
                    seed=11,
                    generated_token_ids=whole.token_ids[:known],
                )
            )
            assert rest.started is not None
            assert whole.token_ids[:known] + rest.token_ids == whole.token_ids
            if rest.chunks:
                sent = whole.text.encode()[: rest.chunks[0].offset].decode()
                assert sent + rest.text == whole.text
            assert rest.finished == whole.finished
            assert rest.started.prompt_tokens == whole.started.prompt_tokens


async def test_a_complete_answer_is_finished_without_drawing_again() -> None:
    async with sim_replica() as (_, client):
        whole = await client.generate(generate_request("x"))
        again = await client.generate(generate_request("x", generated_token_ids=whole.token_ids))
        cut = await client.generate(
            generate_request("x", generated_token_ids=whole.token_ids[:5], max_tokens=5)
        )
    assert again.chunks == cut.chunks == []
    assert again.finished == whole.finished
    assert cut.finished is not None
    assert cut.finished.finish_reason == pb.FINISH_REASON_LENGTH


async def test_refusals_have_the_codes_of_the_contract() -> None:
    async with sim_replica(max_model_len=256) as (_, client):
        assert await refused(client, generate_request(model="other")) == (
            grpc.StatusCode.NOT_FOUND,
            "model_not_found",
        )
        assert await refused(client, generate_request(model_revision="2")) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "model_revision_mismatch",
        )
        assert await refused(client, generate_request("word " * 400)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "context_too_long",
        )
        assert await refused(client, generate_request(generated_token_ids=[2**31])) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_request",
        )
        assert await refused(client, generate_request(json_schema="{}")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_request",
        )
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await anext(aiter(client.stub.Generate(generate_request())))
        assert from_rpc_error(failure.value).fields[0].field == "deadline"


async def test_context_too_long_tells_the_counts() -> None:
    async with sim_replica(max_model_len=100) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(generate_request("hello", max_tokens=99))
    metadata = from_rpc_error(failure.value).metadata
    assert int(metadata["prompt_tokens"]) > 1
    assert metadata["context_length"] == "100"


async def test_a_deadline_aborts_the_request_and_is_told() -> None:
    async with sim_replica(sim_itl=0.01, sim_answer_tokens=0) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(generate_request(max_tokens=4000), timeout=0.2)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await client.idle()


async def test_requests_beyond_the_queue_are_refused_at_once() -> None:
    async with (
        sim_replica(sim_concurrency=1, max_waiting=1, sim_ttft=60.0) as (_, client),
        asyncio.TaskGroup() as group,
    ):
        waiting = [
            group.create_task(client.generate(generate_request(), timeout=60)) for _ in range(2)
        ]

        await client.load_until(lambda load: load.waiting == 2)
        assert await refused(client, generate_request()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "overloaded",
        )
        for task in waiting:
            task.cancel()


async def test_ten_of_a_hundred_leave_and_the_rest_finish() -> None:
    async with sim_replica(sim_itl=0.002, sim_answer_tokens=100, sim_concurrency=40) as (_, client):
        calls = [
            client.stub.Generate(generate_request(max_tokens=200), timeout=30) for _ in range(100)
        ]

        async def read(call: object) -> int:
            tokens = 0
            async for message in call:  # type: ignore[attr-defined]
                tokens += len(message.chunk.token_ids)
            return tokens

        reading = [asyncio.ensure_future(read(call)) for call in calls]

        await client.load_until(lambda load: load.running > 10)
        for call in calls[::10]:
            call.cancel()
        results = await asyncio.gather(*reading, return_exceptions=True)
        await client.idle()
    cancelled = [result for result in results if isinstance(result, BaseException)]
    assert len(cancelled) == 10
    assert all(isinstance(result, asyncio.CancelledError) for result in cancelled)
    assert [result for result in results if isinstance(result, int)] == [100] * 90
