"""The cache service over gRPC: its promises, its refusals, what it does not serve."""

from __future__ import annotations

import asyncio
import urllib.request

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from parley.cache.v1 import cache_pb2 as pb

from parley_cache.servicer import UNSERVED
from parley_kit.errors import ServiceError
from parley_kit.rpc.client import call_unary
from support.cache_wire import Serve, wire_query, wire_store

pytestmark = pytest.mark.integration


async def test_an_answer_is_stored_found_and_invalidated(redis_url: str, serve: Serve) -> None:
    async with serve(redis_url) as (stub, _):
        request = pb.LookupRequest(query=wire_query(), want_lease=True, allow_semantic=True)
        miss = await call_unary(stub.Lookup, request, timeout=5)
        assert (miss.verdict, miss.reason) == (pb.VERDICT_MISS, "not_found")
        assert miss.stamp
        assert miss.lease

        stored = await call_unary(
            stub.Store, wire_store(stamp=miss.stamp, lease=miss.lease), timeout=5
        )
        assert stored.stored, stored.reason
        hit = await call_unary(stub.Lookup, request, timeout=5)
        assert (hit.verdict, hit.reason) == (pb.VERDICT_EXACT, "")
        assert hit.entry.answer == "A wading bird."
        assert hit.entry.finish_reason == "stop"
        assert (hit.entry.prompt_tokens, hit.entry.completion_tokens) == (12, 4)
        assert (hit.entry.source_chat_id, hit.entry.source_message_id) == ("chat-1", "chat-1-2")
        assert hit.entry.entry_id == stored.entry_id
        assert 0 <= hit.entry.age_seconds < 60

        stats = await call_unary(stub.GetStats, pb.GetStatsRequest(tenant="acme"), timeout=5)
        assert stats.entries == 1
        assert stats.bytes > 0
        gone = pb.InvalidateRequest(tenant="acme", chat_id="chat-1")
        dry = pb.InvalidateRequest(tenant="acme", chat_id="chat-1", dry_run=True)
        assert (await call_unary(stub.Invalidate, dry, timeout=5)).entries == 1
        assert (await call_unary(stub.Invalidate, gone, timeout=5)).entries == 1
        assert (await call_unary(stub.Invalidate, gone, timeout=5)).entries == 0
        miss = await call_unary(stub.Lookup, request, timeout=5)
        assert (miss.verdict, miss.reason) == (pb.VERDICT_MISS, "not_found")
        late = await call_unary(stub.Store, wire_store(stamp=miss.stamp), timeout=5)
        assert (late.stored, late.reason) == (False, "invalidated")


async def test_two_replicas_share_answers_and_invalidations(redis_url: str, serve: Serve) -> None:
    async with (
        serve(redis_url, key_prefix="test:shared") as (one, _),
        serve(redis_url, key_prefix="test:shared") as (two, _),
    ):
        await call_unary(one.Invalidate, pb.InvalidateRequest(tenant="acme", all=True), timeout=5)
        stamp = (
            await call_unary(two.Lookup, pb.LookupRequest(query=wire_query()), timeout=5)
        ).stamp
        assert (await call_unary(one.Store, wire_store(stamp=stamp), timeout=5)).stored
        hit = await call_unary(two.Lookup, pb.LookupRequest(query=wire_query()), timeout=5)
        assert hit.verdict == pb.VERDICT_EXACT
        everything = pb.InvalidateRequest(tenant="acme", all=True)
        assert (await call_unary(two.Invalidate, everything, timeout=5)).entries == 1
        miss = await call_unary(one.Lookup, pb.LookupRequest(query=wire_query()), timeout=5)
        assert miss.verdict == pb.VERDICT_MISS


async def test_a_refusal_is_an_answer_with_its_reason(redis_url: str, serve: Serve) -> None:
    async with serve(redis_url) as (stub, _):
        for reason, request in {
            "truncated": wire_store(finish_reason="length"),
            "temperature": wire_store(temperature=1.0),
            "empty_answer": wire_store(answer=""),
            "time_dependent": wire_store("what time is it?"),
            "global_scope_off": wire_store(query=wire_query(scope=pb.SCOPE_GLOBAL)),
        }.items():
            response = await call_unary(stub.Store, request, timeout=5)
            assert (response.stored, response.reason) == (False, reason)
        looked = await call_unary(
            stub.Lookup, pb.LookupRequest(query=wire_query("what time is it?")), timeout=5
        )
        assert (looked.verdict, looked.reason) == (pb.VERDICT_MISS, "time_dependent")


QUESTIONS = [
    "x",
    "é" * 16_000,
    "質問" * 1000,
    "🐦‍⬛" * 200,
    "e\u0301\u200d",
    "a\x00b",
    "-- '; DROP {a} *",
]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_any_text_is_kept_exactly(redis_url: str, serve: Serve, question: str) -> None:
    async with serve(redis_url) as (stub, _):
        request = wire_store(question, answer=question)
        assert (await call_unary(stub.Store, request, timeout=5)).stored
        hit = await call_unary(stub.Lookup, pb.LookupRequest(query=wire_query(question)), timeout=5)
        assert hit.entry.answer == question


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Lookup", pb.LookupRequest(), "query.partition.tenant"),
        ("Lookup", pb.LookupRequest(query=wire_query(tenant="")), "query.partition.tenant"),
        ("Lookup", pb.LookupRequest(query=wire_query(user="")), "query.partition.user"),
        ("Lookup", pb.LookupRequest(query=wire_query(scope=0)), "query.partition.scope"),
        ("Lookup", pb.LookupRequest(query=wire_query(model="m" * 513)), "query.partition.model"),
        (
            "Lookup",
            pb.LookupRequest(query=wire_query(options_digest=b"short")),
            "query.partition.options_digest",
        ),
        ("Store", wire_store(source_chat_id=""), "source_chat_id"),
        ("Store", wire_store(source_message_id=""), "source_message_id"),
        ("Store", wire_store(finish_reason=""), "finish_reason"),
        ("Invalidate", pb.InvalidateRequest(all=True), "tenant"),
        ("Invalidate", pb.InvalidateRequest(tenant="acme"), "all"),
        ("Invalidate", pb.InvalidateRequest(tenant="acme", all=True, user="ann"), "all"),
        ("GetStats", pb.GetStatsRequest(), "tenant"),
    ],
)
async def test_a_wrong_request_names_its_field(
    redis_url: str, serve: Serve, method: str, request_: object, field: str
) -> None:
    async with serve(redis_url) as (stub, _):
        with pytest.raises(ServiceError) as caught:
            await call_unary(getattr(stub, method), request_, timeout=5)
        assert caught.value.status is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.code == "invalid_request"
        assert field in {item.field for item in caught.value.fields}


async def test_what_is_not_served_is_exactly_what_is_listed(redis_url: str, serve: Serve) -> None:
    service = pb.DESCRIPTOR.services_by_name["CacheService"]
    unserved = set()
    async with serve(redis_url) as (stub, _):
        for method in service.methods:
            request = getattr(pb, method.input_type.name)()
            try:
                await call_unary(getattr(stub, method.name), request, timeout=5)
            except ServiceError as error:
                if error.status is grpc.StatusCode.UNIMPLEMENTED:
                    unserved.add(method.name)
    assert unserved == set(UNSERVED)


async def test_spans_say_verdict_and_reason_and_never_text(
    redis_url: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in ("parley_cache.guard._tracer", "parley_kit.rpc.tracing._tracer"):
        monkeypatch.setattr(module, provider.get_tracer("test"))
    async with serve(redis_url, sweep_seconds=3600.0) as (stub, _):
        exporter.clear()
        await call_unary(stub.Lookup, pb.LookupRequest(query=wire_query("Sesame?")), timeout=5)
        spans = {span.name: span for span in exporter.get_finished_spans()}
    client, server, store = (
        next(s for s in exporter.get_finished_spans() if s.kind.name == kind and name in s.name)
        for kind, name in (("CLIENT", "Lookup"), ("SERVER", "Lookup"), ("CLIENT", "redis get"))
    )
    assert len(spans) >= 2
    assert server.parent is not None
    assert store.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert store.parent.span_id == server.context.span_id
    assert server.attributes is not None
    assert server.attributes["parley.cache.verdict"] == "miss"
    assert server.attributes["parley.cache.reason"] == "not_found"
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "Sesame" not in everything
    assert '"ann"' not in everything


async def test_metrics_count_verdicts_by_reason_and_name_nobody(
    redis_url: str, serve: Serve
) -> None:
    async with serve(redis_url) as (stub, running):
        await call_unary(stub.Lookup, pb.LookupRequest(query=wire_query()), timeout=5)
        await call_unary(stub.Store, wire_store(), timeout=5)
        await call_unary(stub.Lookup, pb.LookupRequest(query=wire_query()), timeout=5)
        assert await running.upkeep.round() is not None
        url = f"http://127.0.0.1:{running.admin_port}/metrics"

        def read() -> str:
            with urllib.request.urlopen(url, timeout=5) as response:
                return str(response.read().decode())

        page = await asyncio.to_thread(read)
    assert 'parley_cache_lookups_total{reason="not_found",verdict="miss"}' in page
    assert 'parley_cache_lookups_total{reason="",verdict="exact"}' in page
    assert 'parley_cache_stores_total{outcome="stored"}' in page
    for name in ("entries", "bytes", "redis_up", "redis_seconds_bucket", "served_tokens_total"):
        assert f"parley_cache_{name}" in page
    assert "acme" not in page
    assert "chat-1" not in page
