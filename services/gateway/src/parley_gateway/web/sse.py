"""Server-sent events: their bytes, and the response that sends them as they come.

``id`` is the number of UTF-8 bytes of the answer up to and including the event,
``end`` on the last one. orjson encodes the delta's text and nothing else of it.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import orjson
from parley.session.v1 import session_pb2 as pb
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parley_gateway import metrics
from parley_gateway.clients.answers import Answer
from parley_gateway.problems import Problem, from_run_failure, from_service_error
from parley_gateway.translate import answer_object
from parley_gateway.web.connection import CallerLeft, while_connected
from parley_kit.errors import ServiceError

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # Proxies: neither keep it, nor change it, nor hold it back.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}
HEARTBEAT: Final = b": \n\n"


def delta_event(text: str, end_offset: int) -> bytes:
    """Encode a piece of the answer."""
    return b'event: delta\nid: %d\ndata: {"text":%b}\n\n' % (end_offset, orjson.dumps(text))


def event(name: str, event_id: str, data: dict[str, Any]) -> bytes:
    """Encode any other event. orjson leaves no line end in ``data``."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (
        name.encode(),
        event_id.encode(),
        orjson.dumps(data),
    )


def run_event(accepted: pb.RunAccepted, offset: int) -> bytes:
    """Encode the first event.

    Its id is where the reader is, so that one who gets no further resumes from there.
    """
    return event(
        "run",
        str(offset),
        {
            "runID": accepted.run_id,
            "chatID": accepted.chat_id,
            "messageID": accepted.message_id,
        },
    )


def queued_event(queued: pb.RunQueued, offset: int) -> bytes:
    """Encode a place in the queue; ``offset`` as in ``run_event``."""
    data: dict[str, Any] = {"position": queued.position}
    if queued.HasField("eta_seconds"):
        data["etaSeconds"] = queued.eta_seconds
    return event("queued", str(offset), data)


class AnswerStream(Response):
    """Streams an answer that was accepted; one send for each message of session.

    A slow reader holds back the reading from session: the server's send waits
    while its buffer is full. A reader that leaves ends the call; the run goes
    on. ``released`` is called once, when all is over. ``offset``: the bytes of
    the answer that the reader has. ``began``: when an answer was first asked for.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        status: int,
        headers: dict[str, str],
        new_chat: bool,
        request_id: str,
        began: float | None,
        heartbeat_seconds: float,
        released: Callable[[], None],
        offset: int = 0,
    ) -> None:
        super().__init__(status_code=status, headers=HEADERS | headers)
        del self.headers["content-length"]
        self._answer = answer
        self._new_chat = new_chat
        self._request_id = request_id
        self._began = began
        self._heartbeat_seconds = heartbeat_seconds
        self._released = released
        self._offset = offset
        self._last_sent = 0.0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the stream."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await while_connected(receive, self._send_all(send))
        except CallerLeft:
            log.debug("the caller left; the run goes on")
        finally:
            self._answer.close()
            metrics.STREAM_BYTES.inc(self._bytes)
            self._released()

    async def _send_all(self, send: Send) -> None:
        heartbeat = asyncio.create_task(self._keep_alive(send))
        try:
            await self._frame(send, run_event(self._answer.accepted, self._offset))
            last = await self._send_events(send)
        except ServiceError as error:
            last = self._failed(from_service_error(error))
        except Exception:
            log.exception("a stream failed", extra={"request_id": self._request_id})
            last = self._failed(Problem("internal"))
        finally:
            heartbeat.cancel()
            await asyncio.wait({heartbeat})
            await self._answer.events.aclose()
        self._bytes += len(last)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send_events(self, send: Send) -> bytes:
        """Send everything up to the last event, and return that."""
        now = asyncio.get_running_loop().time
        began = self._began
        async for name, item in self._answer.events:
            if name == "delta":
                delta = item.delta
                frame = delta_event(delta.text, delta.end_offset)
                if began is not None:
                    metrics.TTFT_SECONDS.observe(perf_counter() - began)
                    began = None
            elif name == "done":
                return event("done", "end", answer_object(item.done, new_chat=self._new_chat))
            elif name == "failed":
                return self._failed(run_problem(item.failed))
            elif name == "queued":
                frame = queued_event(item.queued, self._offset)
            else:
                continue
            # `_frame` written out: this is the way of every token.
            self._bytes += len(frame)
            self._last_sent = now()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        raise RuntimeError("an answer ended without its last event")

    async def _frame(self, send: Send, frame: bytes) -> None:
        self._bytes += len(frame)
        self._last_sent = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        """Send a comment when nothing else was sent for a while."""
        now = asyncio.get_running_loop().time
        self._last_sent = now()
        while True:
            idle = now() - self._last_sent
            if idle >= self._heartbeat_seconds:
                await self._frame(send, HEARTBEAT)
                idle = 0.0
            await asyncio.sleep(self._heartbeat_seconds - idle)

    def _failed(self, problem: Problem) -> bytes:
        problem.members.setdefault("runID", self._answer.accepted.run_id)
        problem.members.setdefault("chatID", self._answer.accepted.chat_id)
        return event("failed", "end", problem.body(self._request_id))


def run_problem(failed: pb.RunFailed) -> Problem:
    """Return the problem that a run ended with."""
    return from_run_failure(
        failed.problem.code,
        failed.problem.detail,
        run_id=failed.run_id,
        chat_id=failed.chat_id,
    )
