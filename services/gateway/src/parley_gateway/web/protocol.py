"""HTTP/1.1 as uvicorn's httptools protocol speaks it, with the bounds that it lacks.

Heads are bounded in bytes, number of headers and time; connections in number;
HTTP/1.1 needs exactly one Host. What is no request is answered with a problem
and closed. After an answer to a request whose body is still coming, the rest is
taken in and dropped within a bound, so that the client reads the answer instead
of a reset, and cannot send for ever.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from parley_gateway.problems import MEDIA_TYPE, Problem
from parley_kit.ids import uuid7

LINGER_BYTES: Final = 1024 * 1024
LINGER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class HeadBounds:
    """The bounds of a request's head, and of the number of connections."""

    max_bytes: int
    max_headers: int
    seconds: float
    max_connections: int


class _BadHeadError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. ``bounds`` is set by ``bounded_protocol``."""

    bounds: HeadBounds

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._partial_bytes = 0
        self._in_head = False
        self._in_body = False
        self._refusal = ""
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._lingered = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or drop it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            transport.abort()
            return
        self._arm_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm_head_timer()
        self._end_lingering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; count what belongs to a head that is not complete yet."""
        if self.transport.is_closing():
            return
        if self._linger_timer is not None:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.close()
                return
        was_in_head = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_timer is None:
            self._arm_head_timer()
        # The parser keeps back what is not whole yet. The first part of a head
        # may share its chunk with a body, so counting begins with the second.
        if was_in_head:
            self._partial_bytes += len(data)
            if self._partial_bytes > self.bounds.max_bytes:
                self._refuse("headers_too_large")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes = 0
        self._partial_bytes = 0
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take (a part of) the target."""
        super().on_url(url)
        if len(self.url) > self.bounds.max_bytes:
            raise self._bad_head("headers_too_large")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > self.bounds.max_headers or self._head_bytes > self.bounds.max_bytes:
            raise self._bad_head("headers_too_large")

    def on_headers_complete(self) -> None:
        """Judge the head as a whole, and start to answer."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise self._bad_head("malformed_request")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise self._bad_head("malformed_request")
        super().on_headers_complete()
        self._in_head = False
        self._in_body = True
        # Trailers count anew.
        self._head_bytes = 0
        self._disarm_head_timer()

    def on_message_complete(self) -> None:
        """The request has arrived whole."""
        super().on_message_complete()
        self._in_body = False
        self._end_lingering()

    def on_response_complete(self) -> None:
        """Answered; where the body is still coming, take in a bounded rest of it."""
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._lingered = 0
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not ours
        """Refuse what is no request; called by uvicorn when its parser fails."""
        self._refuse(self._refusal or "malformed_request")

    def _bad_head(self, code: str) -> _BadHeadError:
        # The parser wraps what its callbacks raise; the code waits here.
        self._refusal = code
        return _BadHeadError(code)

    def _refuse(self, code: str) -> None:
        """Answer with a problem and close; only close where another answer is under way."""
        self._disarm_head_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        problem = Problem(code)
        request_id = uuid7()
        body = problem.encoded(request_id)
        head = (
            f"HTTP/1.1 {problem.status} Refused\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _arm_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.seconds, self._head_is_late)

    def _disarm_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse("request_timeout")
        else:
            # Nothing was asked, so nothing is answered.
            self.transport.close()

    def _end_lingering(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None


def bounded_protocol(bounds: HeadBounds) -> type[BoundedHttpProtocol]:
    """Return the protocol class with these bounds, for ``uvicorn.Config(http=…)``."""
    return type("BoundHttpProtocol", (BoundedHttpProtocol,), {"bounds": bounds})
