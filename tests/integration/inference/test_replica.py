"""A replica's life: readiness, load reports, draining, metrics, exit codes."""

import asyncio
import dataclasses
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.inference.v1 import inference_pb2 as pb

from parley_inference.engine.sim import tokenizer
from parley_inference.servicer import SERVICE
from parley_kit.rpc.status import from_rpc_error
from support.inference import (
    ReplicaProcess,
    chat,
    generate_request,
    replica_process,
    sim_replica,
)
from support.poll import until
from support.ports import occupied_port

pytestmark = pytest.mark.integration


async def test_the_served_model_is_listed() -> None:
    async with sim_replica(model="demo", max_model_len=512, model_revision="r7") as (_, client):
        models = (await client.stub.ListModels(pb.ListModelsRequest(), timeout=5)).models
    assert [(m.model_id, m.context_length, m.engine, m.revision) for m in models] == [
        ("demo", 512, "sim", "r7")
    ]
    assert models[0].tokenizer_id == tokenizer.tokenizer_id()


async def test_an_adapter_is_listed_and_asked_for_as_a_model_of_its_own() -> None:
    async with sim_replica() as (replica, client):
        engine: Any = replica._engine
        engine._info = dataclasses.replace(engine.info, adapters={"odd": "1+a"})
        models = (await client.stub.ListModels(pb.ListModelsRequest(), timeout=5)).models
        assert [(m.model_id, m.revision, m.base_model_id, list(m.adapters)) for m in models] == [
            ("sim", "1", "", ["odd"]),
            ("odd", "1+a", "sim", []),
        ]
        answer = await client.generate(generate_request(model="odd", model_revision="1+a"))
        assert answer.started is not None
        assert answer.started.model_revision == "1+a"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(generate_request(model="odd", model_revision="1"))
        assert from_rpc_error(failure.value).code == "model_revision_mismatch"


async def test_counted_tokens_are_those_of_the_prompt() -> None:
    async with sim_replica() as (_, client):
        messages = chat("one", "two three", "où est 東京?", system="Be brief.")
        counts = await client.stub.CountTokens(
            pb.CountTokensRequest(model="sim", messages=messages), timeout=5
        )
        answer = await client.generate(generate_request(messages=messages))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.stub.CountTokens(
                pb.CountTokensRequest(model="other", messages=messages), timeout=5
            )
    assert answer.started is not None
    assert sum(counts.tokens) + counts.overhead_tokens == answer.started.prompt_tokens
    assert len(counts.tokens) == 4
    assert from_rpc_error(failure.value).code == "model_not_found"


async def test_a_connection_ends_at_the_age_that_is_set() -> None:
    async with (
        sim_replica(connection_age_seconds=1) as (replica, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 5)
        leaving = channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await asyncio.wait_for(leaving, 5)


async def test_load_reports_follow_the_load() -> None:
    async with sim_replica(sim_concurrency=2, sim_itl=0.01, sim_answer_tokens=0, max_waiting=5) as (
        _,
        client,
    ):
        call = client.stub.WatchLoad(pb.WatchLoadRequest(min_interval_seconds=0.01), timeout=30)
        reports: list[pb.LoadReport] = []

        async def watch() -> None:
            async for message in call:
                reports.append(message.report)  # noqa: PERF401 - read while it grows

        watching = asyncio.ensure_future(watch())
        await until(lambda: reports, what="a report at once")
        assert (reports[0].max_running, reports[0].max_waiting) == (2, 5)
        assert list(reports[0].models) == ["sim"]
        assert reports[0].kv_free_ratio == 1.0
        answers = [
            asyncio.ensure_future(client.generate(generate_request(max_tokens=100)))
            for _ in range(3)
        ]
        await until(
            lambda: any(r.running == 2 and r.waiting == 1 and r.queued_tokens for r in reports)
        )
        await asyncio.gather(*answers)
        await until(lambda: reports[-1].running == 0 and reports[-1].tokens_per_second > 0)
        call.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [r.sequence for r in reports] == sorted({r.sequence for r in reports})
    assert len({r.replica_id for r in reports}) == 1
    assert any(r.kv_free_ratio < 1.0 for r in reports)


async def test_metrics_count_what_was_served() -> None:
    async with sim_replica() as (_, client):
        before = await client.metric("parley_inference_completion_tokens_total")
        stopped = await client.metric("parley_inference_finished_total")
        answer = await client.generate(generate_request())
        assert await client.metric("parley_inference_completion_tokens_total") == before + len(
            answer.token_ids
        )
        assert await client.metric("parley_inference_finished_total") == stopped + 1
        assert await client.metric("parley_inference_running") == 0
        assert await client.metric("parley_inference_ready") == 1
        assert await client.metric("parley_inference_ttft_seconds_count") > 0


async def test_a_stopping_replica_says_so_finishes_and_refuses(tmp_path: Path) -> None:
    settings = {
        "PARLEY_INFERENCE_SIM_TTFT": "0",
        "PARLEY_INFERENCE_SIM_ITL": "0.01",
        "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": "0",
        "PARLEY_INFERENCE_DRAIN_DELAY_SECONDS": "0.3",
    }
    async with replica_process(settings, tmp_path) as (process, client):
        answering = asyncio.ensure_future(client.generate(generate_request(max_tokens=150)))

        await client.load_until(lambda load: load.running == 1)
        process.signal(signal.SIGTERM)

        await client.load_until(lambda load: load.draining)
        late = await client.generate(generate_request("still served", max_tokens=2))
        assert late.finished is not None
        answer = await answering
        assert answer.finished is not None
        assert len(answer.token_ids) == 150
        assert await process.wait(10) == 0


async def test_what_outlives_the_grace_is_aborted(tmp_path: Path) -> None:
    settings = {
        "PARLEY_INFERENCE_SIM_TTFT": "0",
        "PARLEY_INFERENCE_SIM_ITL": "0.05",
        "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": "0",
        "PARLEY_INFERENCE_SHUTDOWN_GRACE_SECONDS": "0.2",
    }
    async with replica_process(settings, tmp_path) as (process, client):
        answering = asyncio.ensure_future(client.generate(generate_request(max_tokens=5000)))

        await client.load_until(lambda load: load.running == 1)
        process.signal(signal.SIGTERM)
        assert await process.wait(10) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await answering


async def test_health_says_serving_once_ready() -> None:
    async with (
        sim_replica() as (replica, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_wrong_settings_are_told_in_a_line_each(tmp_path: Path) -> None:
    process = ReplicaProcess(
        {"PARLEY_INFERENCE_ENGINE": "openai", "PARLEY_INFERENCE_SIM_ITL": "-1"}, tmp_path / "log"
    )
    with pytest.raises(RuntimeError, match="exited with 2") as failure:
        await process.launch()
    assert "PARLEY_INFERENCE_MODEL: is required by the openai engine" in str(failure.value)
    assert "PARLEY_INFERENCE_UPSTREAM_URL: is required" in str(failure.value)
    assert "PARLEY_INFERENCE_SIM_ITL" in str(failure.value)


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with occupied_port() as port:
        process = ReplicaProcess(
            {"PARLEY_INFERENCE_ENGINE": "sim", "PARLEY_INFERENCE_ADMIN_PORT": str(port)},
            tmp_path / "log",
        )
        with pytest.raises(RuntimeError, match="exited with 3") as failure:
            await process.launch()
    assert "in use" in str(failure.value)
