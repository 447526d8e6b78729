"""The same stream, for a caller who wants one JSON answer."""

from time import perf_counter

from parley.session.v1 import session_pb2 as pb

from parley_gateway import metrics
from parley_gateway.clients.answers import Answer
from parley_gateway.problems import from_service_error
from parley_gateway.web.sse import run_problem
from parley_kit.errors import ServiceError


async def collect(answer: Answer, began: float | None) -> pb.RunDone:
    """Read an answer to its end. Raises Problem where it failed.

    The text is in the last event, so the pieces are let go as they come.
    """
    try:
        async for name, item in answer.events:
            if began is not None and name in ("delta", "done"):
                metrics.TTFT_SECONDS.observe(perf_counter() - began)
                began = None
            if name == "done":
                return item.done
            if name == "failed":
                raise run_problem(item.failed)
    except ServiceError as error:
        problem = from_service_error(error)
        problem.members.setdefault("runID", answer.accepted.run_id)
        problem.members.setdefault("chatID", answer.accepted.chat_id)
        raise problem from error
    finally:
        await answer.events.aclose()
    raise RuntimeError("an answer ended without its last event")
