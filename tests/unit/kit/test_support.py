"""The helpers of the tests do what the tests rely on."""

import asyncio
import time
import types

import pytest
from blockbuster import BlockingError

from parley_kit import ids
from support.otlp import CollectedSpan, assert_one_trace, assert_tree, draw
from support.poll import NeverHappenedError, until, until_sync


async def test_a_condition_is_waited_for() -> None:
    begun = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, begun.set)
    assert await until(begun.is_set)


async def test_an_assertion_that_fails_at_first_is_tried_again() -> None:
    tries: list[int] = []

    def third() -> bool:
        tries.append(1)
        assert len(tries) >= 3
        return True

    assert await until(third)


async def test_a_condition_that_never_comes_true_fails_with_its_name() -> None:
    with pytest.raises(NeverHappenedError, match="a pig flies"):
        await until(lambda: False, 0.01, "a pig flies")
    with pytest.raises(NeverHappenedError, match="a pig flies"):
        until_sync(lambda: False, 0.01, "a pig flies")


def _as_platform_code(source: str) -> types.FunctionType:
    """Compile a function as though it stood in a service's file."""
    namespace: dict[str, object] = {"time": time, "asyncio": asyncio}
    exec(compile(source, ids.__file__, "exec"), namespace)
    function = namespace["work"]
    assert isinstance(function, types.FunctionType)
    return function


async def test_a_blocking_call_of_a_service_on_its_loop_is_an_error_and_is_noted(
    no_blocking_calls: list[BlockingError],
) -> None:
    work = _as_platform_code("async def work(): time.sleep(0)")
    with pytest.raises(BlockingError):
        await work()
    # Caught on its way, as a server would: it still would have failed this test.
    assert len(no_blocking_calls) == 1
    no_blocking_calls.clear()


async def test_blocking_in_a_thread_is_nobody_s_concern() -> None:
    work = _as_platform_code("def work(): time.sleep(0)")
    await asyncio.to_thread(work)


@pytest.mark.blocking_allowed
async def test_a_test_may_say_that_it_has_to_block() -> None:
    await _as_platform_code("async def work(): time.sleep(0)")()


def _span(name: str, span_id: str, parent: str = "", start: int = 0) -> CollectedSpan:
    return CollectedSpan(
        service="s",
        name=name,
        kind="internal",
        trace_id="t",
        span_id=span_id,
        parent_id=parent,
        start_ns=start,
        end_ns=start + 1,
        failed=False,
        attributes={},
        links=(),
        events=(),
    )


def test_a_trace_is_drawn_as_a_tree_whatever_the_order_of_arrival() -> None:
    spans = [
        _span("c", "3", "1", 3),
        _span("d", "4", "2", 2),
        _span("b", "2", "1", 1),
        _span("a", "1"),
    ]
    assert_tree(
        spans,
        """
        s: a
          s: b
            s: d
          s: c
        """,
    )
    assert draw(spans, keep=lambda span: span.name != "b") == "s: a\n  s: d\n  s: c"
    assert_one_trace(spans)
    with pytest.raises(AssertionError):
        assert_one_trace(spans[:-1])
    with pytest.raises(AssertionError, match="and not"):
        assert_tree(spans, "s: a")
