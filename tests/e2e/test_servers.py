"""What every server of the platform says of itself: health, reflection, metrics."""

from __future__ import annotations

import re

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from parley.cache.v1 import cache_pb2
from parley.inference.v1 import inference_pb2
from parley.session.v1 import session_pb2

from e2e import flows
from parley_cache.servicer import UNSERVED
from parley_devstack.stack import Stack

CONTRACTS = {
    "session": session_pb2.DESCRIPTOR,
    "cache": cache_pb2.DESCRIPTOR,
    "inference": inference_pb2.DESCRIPTOR,
}
# Calls that the contracts have and this version does not serve.
NOT_SERVED: dict[str, set[str]] = {
    "session": set(),
    "cache": set(UNSERVED),
    "inference": set(),
}
CONVENTIONAL = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}

# What dashboards and scaling rules rely on, each with samples once a chat was held.
METRICS = {
    "gateway": (
        "parley_gateway_http_requests_total",
        "parley_gateway_http_request_seconds_count",
        "parley_gateway_ttft_seconds_count",
        "parley_gateway_stream_bytes_total",
        "parley_gateway_open_answers",
        "parley_rpc_client_seconds_count",
    ),
    "session": (
        "parley_session_runs_total",
        "parley_session_run_seconds_count",
        "parley_session_ttft_seconds_count",
        "parley_session_itl_seconds_count",
        "parley_session_prompt_tokens_total",
        "parley_session_cached_prompt_tokens_total",
        "parley_session_completion_tokens_total",
        "parley_session_cache_verdicts_total",
        "parley_session_cache_fills_total",
        "parley_session_store_seconds_count",
        "parley_session_log_seconds_count",
        "parley_session_live_runs",
        "parley_session_fleet_room",
        "parley_rpc_client_seconds_count",
        "parley_rpc_server_seconds_count",
    ),
    "cache": (
        "parley_cache_lookups_total",
        "parley_cache_stores_total",
        "parley_cache_redis_seconds_count",
        "parley_cache_redis_up",
        "parley_rpc_server_seconds_count",
    ),
    "inference": (
        "parley_inference_running",
        "parley_inference_waiting",
        "parley_inference_queued_tokens",
        "parley_inference_kv_free_ratio",
        "parley_inference_queue_seconds_count",
        "parley_inference_ttft_seconds_count",
        "parley_inference_itl_seconds_count",
        "parley_inference_prompt_tokens_total",
        "parley_inference_completion_tokens_total",
        "parley_rpc_server_seconds_count",
    ),
}


@pytest.mark.parametrize("kind", CONTRACTS)
async def test_health_and_reflection_are_there(sim_stack: Stack, kind: str) -> None:
    contract = CONTRACTS[kind]
    (service,) = contract.services_by_name.values()
    async with grpc.aio.insecure_channel(sim_stack.plan(f"{kind}-1").grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", service.full_name):
            request = health_pb2.HealthCheckRequest(service=name)
            told = await health.Check(request, timeout=5)
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.full_name),
        ]
        answers = [answer async for answer in reflection(iter(asked), timeout=5)]
    listed = {found.name for found in answers[0].list_services_response.service}
    assert listed == CONVENTIONAL | {service.full_name}
    assert contract.serialized_pb in answers[1].file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("kind", CONTRACTS)
async def test_what_answers_unimplemented_is_exactly_what_is_listed(
    sim_stack: Stack, kind: str
) -> None:
    contract = CONTRACTS[kind]
    (service,) = contract.services_by_name.values()
    unserved = set()
    async with grpc.aio.insecure_channel(sim_stack.plan(f"{kind}-1").grpc) as channel:
        for method in service.methods:
            # An empty message: good or bad, a call that is served says something else.
            call = channel.unary_stream(f"/{service.full_name}/{method.name}")(b"", timeout=5)
            try:
                await call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    unserved.add(method.name)
            finally:
                call.cancel()
    assert unserved == NOT_SERVED[kind]


@pytest.mark.parametrize("kind", ["gateway", *CONTRACTS])
async def test_the_admin_port_says_that_it_is_well(sim_stack: Stack, kind: str) -> None:
    admin = sim_stack.plan(f"{kind}-1").admin
    async with httpx.AsyncClient(base_url=f"http://{admin}") as http:
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200


async def test_what_dashboards_rely_on_has_samples(sim_stack: Stack) -> None:
    async with flows.client(sim_stack.url, user="metered") as http:
        for _ in range(2):
            await flows.stream(http, "/chat", "What is measured?", options={"temperature": 0})
    shown: dict[str, str] = {}
    async with httpx.AsyncClient() as http:
        for kind in METRICS:
            for name in sim_stack.names_of(kind):
                text = (await http.get(f"http://{sim_stack.plan(name).admin}/metrics")).text
                shown[kind] = shown.get(kind, "") + text
    missing = [
        name
        for kind, names in METRICS.items()
        for name in names
        if not re.search(rf"^{name}(?:{{[^}}]*}})? [0-9]", shown[kind], re.MULTILINE)
    ]
    assert missing == []
    # Nobody's name and nobody's chat is in a label.
    ids = re.compile(r'"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-')
    for kind, text in shown.items():
        assert "metered" not in text, kind
        assert not ids.search(text), kind
