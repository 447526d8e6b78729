"""A run that waited, was made by a worker or was taken over links to the trace that began it."""

from __future__ import annotations

import asyncio

from e2e import flows
from support.otlp import CollectedSpan, Collector
from support.poll import until
from support.stack import MakeStack

RUN_ID = "parley.run.id"
ATTEMPT = "parley.run.attempt"
BEGINNERS = ("parley-session", "parley-worker")
ONE_SLOT = {
    "PARLEY_INFERENCE_SIM_CONCURRENCY": "1",
    "PARLEY_INFERENCE_MAX_NUM_SEQS": "1",
}


def _env(collector: Collector) -> dict[str, dict[str, str]]:
    return {
        kind: {f"PARLEY_{kind.upper()}_OTLP_ENDPOINT": collector.endpoint}
        for kind in ("gateway", "session", "inference")
    }


def _runs(spans: list[CollectedSpan], run_id: str) -> list[CollectedSpan]:
    return [
        span
        for span in spans
        if span.service in BEGINNERS
        and span.name == "run"
        and span.attributes.get(RUN_ID) == run_id
    ]


def _is_linked(spans: list[CollectedSpan], run: CollectedSpan) -> bool:
    """Whether a run's one link leads to another trace, which began with a POST."""
    traces = [trace_id for trace_id, _ in run.links]
    return (
        len(traces) == 1
        and traces[0] != run.trace_id
        and any(
            span.service == "parley-gateway" and "POST" in span.name and span.trace_id == traces[0]
            for span in spans
        )
    )


async def test_runs_that_waited_link_to_the_call_that_began_them(
    collector: Collector, make_stack: MakeStack
) -> None:
    env = _env(collector)
    env["inference"] |= ONE_SLOT
    stack = await make_stack(workers=1, env=env)

    async def ask(number: int) -> list[flows.Event]:
        async with flows.client(stack.url) as http:
            text = f"[[sim:length tokens=30]] [[sim:slow itl=0.01]] {number}"
            return await flows.stream(http, "/chat", text, options={"cache": "bypass"})

    answers = await asyncio.gather(*(ask(number) for number in range(6)))
    waited = [
        events[0].data["runID"]
        for events in answers
        if any(event.name == "queued" for event in events)
    ]
    assert waited

    def linked(spans: list[CollectedSpan]) -> bool:
        for run_id in waited:
            runs = _runs(spans, run_id)
            assert len(runs) == 1
            assert _is_linked(spans, runs[0])
        return True

    await collector.wait_for(linked, timeout=20)


async def test_a_run_taken_over_links_to_the_call_that_began_it(
    collector: Collector, make_stack: MakeStack
) -> None:
    stack = await make_stack(spare={"session": 1}, env=_env(collector))
    seen: list[flows.Event] = []

    async def read() -> None:
        body = {
            "message": "[[sim:length tokens=400]] [[sim:slow itl=0.05]] Go on.",
            "stream": True,
            "options": {"cache": "bypass"},
        }
        async with (
            flows.client(stack.url) as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            async for event in flows.events(response):
                seen.append(event)  # noqa: PERF401 - looked at while it grows

    reading = asyncio.create_task(read())
    await until(lambda: len(seen) > 10, what="an answer in progress")
    await stack.add("session")
    await stack.kill("session-1")
    await reading
    assert seen[-1].name == "done", seen[-1]
    run_id = seen[0].data["runID"]

    def linked(spans: list[CollectedSpan]) -> bool:
        taken = [run for run in _runs(spans, run_id) if run.attributes[ATTEMPT] > 1]
        assert taken
        return all(_is_linked(spans, run) for run in taken)

    await collector.wait_for(linked, timeout=20)
