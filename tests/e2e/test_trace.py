"""One trace holds a request's way through every service; none of it is per token."""

from __future__ import annotations

from e2e import flows
from support.otlp import CollectedSpan, Collector, assert_one_trace, draw
from support.stack import MakeStack

KINDS = ("gateway", "session", "cache", "inference")


def traces(spans: list[CollectedSpan]) -> list[list[CollectedSpan]]:
    """The traces that began with a POST at the gateway, oldest first."""
    roots = [s for s in spans if s.service == "parley-gateway" and not s.parent_id]
    posts = [root.trace_id for root in roots if "POST" in root.name]
    return [[span for span in spans if span.trace_id == trace_id] for trace_id in posts]


def titles(trace: list[CollectedSpan]) -> list[str]:
    return sorted(span.title for span in trace)


async def ask(url: str, tokens: int) -> list[flows.Event]:
    async with flows.client(url) as http:
        message = f"[[sim:length tokens={tokens}]] Trace me {tokens} times."
        return await flows.stream(http, "/chat", message)


async def test_a_streamed_completion_is_one_trace_over_all_services(
    collector: Collector, make_stack: MakeStack
) -> None:
    env = {kind: {f"PARLEY_{kind.upper()}_OTLP_ENDPOINT": collector.endpoint} for kind in KINDS}
    stack = await make_stack(env=env)
    # The first one also has the engine count: what its template adds is not known yet.
    await ask(stack.url, tokens=12)
    short = await ask(stack.url, tokens=10)
    long = await ask(stack.url, tokens=100)
    assert len(long) > len(short)

    def both_complete(spans: list[CollectedSpan]) -> bool:
        found = traces(spans)
        return len(found) == 3 and all(
            {s.service for s in trace} == {f"parley-{kind}" for kind in KINDS} for trace in found
        )

    await collector.wait_for(both_complete, timeout=15)

    # The last spans come when all is stored. Ten times the tokens: as many spans.
    def both_right(spans: list[CollectedSpan]) -> bool:
        for trace in traces(spans):
            check(trace)
        _, second, third = traces(spans)
        return titles(second) == titles(third)

    await collector.wait_for(both_right, timeout=15)


def check(spans: list[CollectedSpan]) -> None:
    """Assert who is whose parent."""
    assert_one_trace(spans)

    def one(service: str, kind: str, part: str) -> CollectedSpan:
        found = [
            s
            for s in spans
            if s.service == f"parley-{service}" and s.kind == kind and part in s.name
        ]
        assert len(found) == 1, f"{service} {kind} {part}\n{draw(spans)}"
        return found[0]

    by_id = {span.span_id: span for span in spans}

    def below(span: CollectedSpan, ancestor: CollectedSpan) -> bool:
        while span.parent_id:
            if span.parent_id == ancestor.span_id:
                return True
            span = by_id[span.parent_id]
        return False

    root = one("gateway", "server", "/chat")
    hops = [
        (one("gateway", "client", "Complete"), one("session", "server", "Complete")),
        (one("session", "client", "CacheService/Lookup"), one("cache", "server", "Lookup")),
        (one("session", "client", "Generate"), one("inference", "server", "Generate")),
    ]
    for client, server in hops:
        assert server.parent_id == client.span_id, draw(spans)
        assert below(client, root), draw(spans)
    complete = hops[0][1]
    for _, server in hops[1:]:
        assert below(server, complete), draw(spans)
    for name in ("accept", "context"):
        assert below(one("session", "internal", name), complete), draw(spans)
    assert any("prefill" in s.name for s in spans), draw(spans)
    assert any("decode" in s.name for s in spans), draw(spans)
    assert all("Trace me" not in str(s.attributes) for s in spans)
