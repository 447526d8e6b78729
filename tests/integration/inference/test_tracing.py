"""A request's phases are spans below its call, as many for two tokens as for two hundred."""

import json
from pathlib import Path

import grpc.aio
import pytest

from support.inference import generate_request, replica_process
from support.otlp import Collector, draw

pytestmark = pytest.mark.integration

PHASES = ["inference.queue", "inference.prefill", "inference.decode"]


async def test_the_number_of_spans_does_not_depend_on_the_number_of_tokens(
    tmp_path: Path, collector: Collector
) -> None:
    settings = {
        "PARLEY_INFERENCE_OTLP_ENDPOINT": collector.endpoint,
        "PARLEY_INFERENCE_SIM_TTFT": "0.01",
        "PARLEY_INFERENCE_SIM_ITL": "0.001",
        "PARLEY_INFERENCE_SIM_ANSWER_TOKENS": "0",
    }
    async with replica_process(settings, tmp_path) as (_, client):
        for tokens in (2, 200):
            collector.clear()
            await client.generate(generate_request(max_tokens=tokens))
            spans = await collector.wait_for(
                lambda found: any(span.kind == "server" for span in found)
            )
            served = next(span for span in spans if span.kind == "server")
            below = [span for span in spans if span.parent_id == served.span_id]
            assert [span.name for span in below] == PHASES, draw(spans)
            assert len(spans) == 4, draw(spans)
            assert served.attributes["gen_ai.usage.output_tokens"] == tokens
            assert served.attributes["gen_ai.response.finish_reasons"] == ["length"]
            queue, prefill, decode = below
            assert served.start_ns <= queue.start_ns + 1_000_000
            assert queue.end_ns == prefill.start_ns
            assert prefill.end_ns == decode.start_ns


async def test_the_log_of_a_simulated_fault_names_its_requests_trace(
    tmp_path: Path, collector: Collector
) -> None:
    settings = {
        "PARLEY_INFERENCE_OTLP_ENDPOINT": collector.endpoint,
        "PARLEY_INFERENCE_SIM_FAULTS": "true",
    }
    async with replica_process(settings, tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.generate(generate_request("[[sim:fail after=3]]"))
        spans = await collector.wait_for(lambda found: any(span.kind == "server" for span in found))
    served = next(span for span in spans if span.kind == "server")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (struck,) = [line for line in lines if line.get("fault") == "fail"]
    assert struck["trace_id"] == served.trace_id
