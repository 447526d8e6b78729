"""A replica before an upstream that speaks OpenAI's dialect over real HTTP, and misbehaves."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_inference.bootstrap import Replica
from parley_inference.config import Settings
from parley_inference.engine.build import build_engine
from parley_kit.errors import StartupError
from parley_kit.rpc.status import from_rpc_error
from support.fake_upstream import MODEL, FakeUpstream, Fault, fake_upstream
from support.inference import Answer, Client, connect, generate_request, replica_of
from support.poll import until

pytestmark = pytest.mark.integration

TLS = Path(__file__).parents[2] / "data" / "tls"
KEY = "sk-not-to-be-seen"


def ask(text: str = "hello", **options: Any) -> pb.GenerateRequest:
    return generate_request(text, model=MODEL, **options)


@asynccontextmanager
async def served(
    behaviour: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[FakeUpstream, Client]]:
    async with fake_upstream(**(behaviour or {})) as upstream:
        values = {"upstream_dialect": "vllm", "upstream_look_seconds": 0.02} | settings
        async with replica_of(
            engine="openai", model=MODEL, upstream_url=upstream.url, **values
        ) as (_, client):
            yield upstream, client


async def refused(client: Client, request: pb.GenerateRequest) -> tuple[str, Answer]:
    answer = Answer()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(request, answer)
    return from_rpc_error(failure.value).code, answer


async def test_tokens_are_counted_by_the_upstream() -> None:
    async with served(upstream_look_seconds=60) as (upstream, client):
        answer = await client.generate(ask("one two three"))
        assert answer.finished is not None
        assert answer.finished.prompt_tokens == 7
        assert answer.finished.completion_tokens == 64
        await client.idle()
        again = await client.generate(ask("one two three", max_tokens=5))
        assert again.finished is not None
        assert again.finished.finish_reason == pb.FINISH_REASON_LENGTH
        # Streams read to their end leave their connection for the next one.
        assert upstream.connections == 1
        sent = upstream.requests[0]
    assert sent["stream_options"] == {"include_usage": True}
    assert not sent.keys() & {"n", "logprobs", "stop"}


async def test_without_usage_the_pieces_are_counted() -> None:
    async with served({"usage": False}) as (_, client):
        answer = await client.generate(ask("x", max_tokens=9))
        assert answer.finished is not None
        assert answer.finished.completion_tokens == 9


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", status=500),
        Fault("", status=503, headers="Retry-After: 0\r\n"),
        Fault("", status=429, headers="Retry-After: 0.1\r\n"),
        Fault("cut"),
        Fault("end"),
        Fault("rubbish"),
        Fault("endless"),
        Fault("error"),
        Fault("half"),
        Fault("garbled"),
        Fault("noise"),
    ],
    ids=lambda fault: f"{fault.kind}{fault.status}",
)
async def test_before_the_first_text_a_failed_try_is_followed_by_another(fault: Fault) -> None:
    async with served() as (upstream, client):
        undisturbed = await client.generate(ask())
        upstream.faults.append(fault)
        answer = await client.generate(ask())
        assert answer.text == undisturbed.text
        assert answer.finished == undisturbed.finished
        assert len(upstream.requests) == 3
        await client.idle()


@pytest.mark.parametrize("kind", ["cut", "end", "rubbish", "endless", "error", "half", "garbled"])
async def test_after_it_the_answer_is_continued_by_whoever_asks(kind: str) -> None:
    async with served() as (upstream, client):
        undisturbed = await client.generate(ask())
        upstream.faults.append(Fault(kind, after=20))
        code, answer = await refused(client, ask())
        assert code == "engine_lost"
        assert len(upstream.requests) == 2
        assert 0 < len(answer.text) < len(undisturbed.text)
        rest = await client.generate(ask(generated_token_ids=answer.token_ids))
        assert rest.started is not None
        assert rest.started.continuation == pb.CONTINUATION_SAMPLED
        assert upstream.requests[-1]["continue_final_message"] is True
        assert rest.chunks[0].offset == len(answer.text.encode())
        assert undisturbed.text.startswith(answer.text + rest.text[:20])


async def test_upstreams_that_cannot_continue_say_so() -> None:
    async with served(upstream_dialect="openai") as (_, client):
        answer = await client.generate(ask())
        assert answer.started is not None
        assert answer.started.continuation == pb.CONTINUATION_NONE
        code, _ = await refused(client, ask(generated_token_ids=answer.token_ids[:5]))
        assert code == "continuation_unsupported"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, b'{"error": {"param": "temperature"}}', "invalid_request"),
        (400, b'{"error": {"code": "context_length_exceeded"}}', "context_too_long"),
        (401, b"", "engine_unavailable"),
        (404, b"rubbish", "engine_unavailable"),
        (302, b"", "engine_unavailable"),
        (500, b'{"error": "secret prompt"}', "engine_unavailable"),
        (429, b"[]", "overloaded"),
    ],
)
async def test_errors_have_the_codes_of_the_contract(status: int, body: bytes, code: str) -> None:
    async with served(upstream_retries=0) as (upstream, client):
        upstream.faults.append(Fault("", status=status, body=body, headers="Retry-After: 7\r\n"))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(ask())
        error = from_rpc_error(failure.value)
        assert error.code == code
        assert "secret" not in str(error)
        if code == "overloaded":
            assert error.retry_after == 7.0
        assert len(upstream.requests) == 1
        await client.idle()


async def test_a_long_wait_asked_for_is_left_to_others() -> None:
    async with served() as (upstream, client):
        upstream.faults.append(Fault("", status=429, headers="Retry-After: 60\r\n"))
        code, _ = await refused(client, ask())
        assert code == "overloaded"
        assert len(upstream.requests) == 1


async def test_leaving_ends_the_upstreams_work() -> None:
    async with served({"pace": 0.01, "answer_tokens": 1000}) as (upstream, client):
        call = client.stub.Generate(ask(max_tokens=1000), timeout=30)
        other = asyncio.ensure_future(client.generate(ask("other", max_tokens=30)))
        await until(lambda: upstream.running == 2)
        async for message in call:
            if message.HasField("chunk"):
                break
        call.cancel()
        await until(lambda: upstream.running <= 1)
        assert (await other).finished is not None
        await until(lambda: upstream.running == 0)
        await client.idle()
        undisturbed = await client.generate(ask("other", max_tokens=30))
        assert (await other).text == undisturbed.text
        assert upstream.abandoned == 1


@pytest.mark.parametrize("after", [0, 5])
async def test_a_hanging_upstream_is_left_at_the_deadline(after: int) -> None:
    async with served() as (upstream, client):
        upstream.faults.append(Fault("hang", after=after))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(ask(), timeout=0.5)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: upstream.running == 0)
        await client.idle()


@pytest.mark.parametrize("kind", ["hang", "mute"])
async def test_a_silent_upstream_is_given_up_for_another_try(kind: str) -> None:
    async with served(upstream_silence_seconds=0.2) as (upstream, client):
        upstream.faults.append(Fault(kind))
        assert (await client.generate(ask())).finished is not None
        assert len(upstream.requests) == 2


async def test_a_slow_upstream_is_waited_for_as_long_as_anything_comes() -> None:
    slow = {"pace": 0.15, "answer_tokens": 16}
    async with served(slow, upstream_silence_seconds=2) as (upstream, client):
        answer = await client.generate(ask(max_tokens=16))
        assert answer.finished is not None
        assert answer.finished.completion_tokens == 16
        # It took longer in all than silence may last.
        assert len(upstream.requests) == 1


async def test_an_engine_outside_the_fleet_refuses_what_must_not_leave_it() -> None:
    async with served() as (upstream, client):
        models = await client.stub.ListModels(pb.ListModelsRequest(), timeout=5)
        assert [model.external for model in models.models] == [True]
        code, _ = await refused(client, ask("a secret", own_fleet_only=True))
        assert code == "external_engine"
        assert upstream.requests == []
        await client.idle()
    async with served(upstream_fleet="own") as (upstream, client):
        models = await client.stub.ListModels(pb.ListModelsRequest(), timeout=5)
        assert [model.external for model in models.models] == [False]
        assert (await client.generate(ask(own_fleet_only=True))).finished is not None
        assert len(upstream.requests) == 1


async def test_an_upstream_that_does_not_stop_is_stopped() -> None:
    async with served() as (upstream, client):
        upstream.faults.append(Fault("flood", after=1))
        code, answer = await refused(client, ask(max_tokens=16))
        # Whether anything left before it was noticed.
        assert code == ("engine_lost" if answer.started else "engine_unavailable")
        assert len(answer.text) < 64 * 1024
        await until(lambda: upstream.running == 0)


async def test_an_upstream_that_is_away_makes_the_replica_not_ready_until_it_is_back() -> None:
    async with served({"key": KEY}, upstream_api_key=KEY) as (upstream, client):
        upstream.away = True
        await client.load_until(lambda load: load.draining)
        assert (await refused(client, ask()))[0] == "engine_unavailable"
        upstream.away = False
        await client.load_until(lambda load: not load.draining)
        assert (await client.generate(ask())).finished is not None


async def test_the_key_is_read_from_its_file_and_never_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    async with served({"key": KEY}, upstream_api_key_file=file) as (upstream, client):
        assert (await client.generate(ask())).finished is not None
        upstream.key = "sk-rotated"
        file.write_text("sk-rotated")

        async def accepted() -> bool:
            try:
                return (await client.generate(ask())).finished is not None
            except grpc.aio.AioRpcError:
                return False

        await until(accepted)
        upstream.faults.append(Fault("", status=403))
        await refused(client, ask())
    assert KEY not in caplog.text
    assert "sk-rotated" not in caplog.text


async def test_a_wrong_key_ends_the_start_with_a_sentence() -> None:
    with pytest.raises(StartupError, match="credential") as failure:
        async with served({"key": KEY}, upstream_api_key="sk-wrong"):
            pass
    assert "sk-wrong" not in str(failure.value)


async def test_a_model_that_the_upstream_does_not_have_ends_the_start() -> None:
    async with fake_upstream() as upstream:
        with pytest.raises(StartupError, match="does not list"):
            async with replica_of(
                engine="openai", model="other", upstream_url=upstream.url, upstream_dialect="vllm"
            ):
                pass


async def test_certificates_are_verified() -> None:
    # Signed by itself, for localhost.
    certificate = TLS / "localhost.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, TLS / "localhost.key")
    async with fake_upstream(tls=context) as upstream:
        url = upstream.url.replace("http://127.0.0.1", "https://localhost")
        settings = {"engine": "openai", "model": MODEL, "upstream_url": url}
        async with replica_of(**settings, upstream_ca_file=certificate) as (_, client):
            assert (await client.generate(ask())).finished is not None
        with pytest.raises(StartupError, match="did not come"):
            async with replica_of(**settings, upstream_start_seconds=0):
                pass


async def test_a_replica_is_not_ready_until_its_upstream_is_there() -> None:
    async with fake_upstream(away=True) as upstream:
        settings = Settings(
            port=0, admin_port=0, engine="openai", model=MODEL, upstream_url=upstream.url
        )
        replica = Replica(settings, build_engine(settings))
        await replica.start()
        loading = asyncio.create_task(replica.load())
        try:
            async with connect(replica.port) as client:
                assert (await refused(client, ask()))[0] == "engine_unavailable"
                assert not replica.serving
                upstream.away = False
                await until(lambda: replica.serving)
                assert (await client.generate(ask())).finished is not None
        finally:
            loading.cancel()
            await replica.stop()
