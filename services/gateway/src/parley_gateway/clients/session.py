"""Unary calls to session, and the retries that are safe.

A call that fails because its replica cannot be reached, or that says nothing for
a while (it may be frozen), is made once more, on another replica and with the same
ids: every call is idempotent under its ids.
An answer of session, be it a refusal, is never retried here.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc.aio
from parley.session.v1.session_pb2_grpc import SessionServiceStub

from parley_gateway import metrics
from parley_gateway.access.credentials import Caller
from parley_kit.errors import NoReplica, ServiceError
from parley_kit.replicas import Replica, ReplicaSet, Resolver
from parley_kit.rpc.client import call_unary, method_name
from parley_kit.rpc.security import Security

if TYPE_CHECKING:
    # What the stub is on an asyncio channel; it exists for type checkers only.
    from parley.session.v1.session_pb2_grpc import SessionServiceAsyncStub as Stub
else:
    Stub = SessionServiceStub

FULL_NAME: Final = "parley.session.v1.SessionService"
# Seconds that a call waits for a replica to be ready, before it is refused: longer than
# a connection's pause between two tries, so that one that is up again is found.
READY_WAIT_SECONDS: Final = 3.0
# Seconds that a call's first try may take while another replica is ready.
FIRST_TRY_SECONDS: Final = 3.0
# Codes that the transport gives; session's own refusals have codes of theirs.
TRANSPORT_CODES: Final = frozenset({"unavailable", "cancelled"})

Request = TypeVar("Request")
Response = TypeVar("Response")
SessionReplica = Replica[Stub]
SessionReplicas = ReplicaSet[Stub]
Metadata = Sequence[tuple[str, str | bytes]]


def session_replicas(resolver: Resolver, security: Security | None = None) -> SessionReplicas:
    """Return the set of session's replicas, each with its stub."""
    return ReplicaSet(
        resolver,
        name="session",
        health_service=FULL_NAME,
        attach=lambda _address, channel: SessionServiceStub(channel),
        security=security,
    )


def metadata_for(caller: Caller, request_id: str) -> Metadata:
    """Return the metadata that tells session who asks."""
    found: list[tuple[str, str | bytes]] = [
        ("parley-tenant", caller.tenant),
        ("parley-user-bin", caller.user.encode()),
        ("parley-request-id", request_id),
    ]
    if caller.as_owner:
        found.append(("parley-as-owner", "1"))
    return found


class SessionClient:
    """Calls session's replicas. ``timeout_seconds`` bounds a unary call with its retry."""

    def __init__(self, replicas: SessionReplicas, timeout_seconds: float) -> None:
        self._replicas = replicas
        self._timeout = timeout_seconds

    @property
    def ready(self) -> bool:
        """Whether some replica can take a call."""
        return bool(self._replicas.ready())

    async def call(
        self,
        select: Callable[[Stub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        metadata: Metadata,
        *,
        timeout: float | None = None,
        if_gone_on_retry: Response | None = None,
    ) -> Response:
        """Make a unary call within ``timeout`` seconds. Raises ServiceError.

        ``if_gone_on_retry``: the answer where a second try finds ``not_found``,
        because the first, whose answer was lost, has deleted it.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + (timeout or self._timeout)
        replica = await self.pick()
        first_deadline = deadline
        if any(other is not replica for other in self._replicas.ready()):
            first_deadline = min(deadline, now() + FIRST_TRY_SECONDS)
        try:
            return await _on(replica, select, request, metadata, first_deadline)
        except ServiceError as error:
            slow = error.code == "timed_out" and first_deadline < deadline
            if error.code not in TRANSPORT_CODES and not slow:
                raise
            replica = await self.pick_another(replica, error)
            metrics.SESSION_RETRIES.labels(method_name(select(replica.attachment))).inc()
        try:
            return await _on(replica, select, request, metadata, deadline)
        except ServiceError as error:
            if error.code == "not_found" and if_gone_on_retry is not None:
                return if_gone_on_retry
            raise

    async def pick(self, *, avoid: SessionReplica | None = None) -> SessionReplica:
        """Choose a replica, another than ``avoid`` where one is ready. Raises NoReplica.

        Waits a moment for one to be ready.
        """
        if avoid is not None:
            with contextlib.suppress(NoReplica):
                return self._replicas.pick(exclude=(avoid,))
        try:
            return self._replicas.pick()
        except NoReplica:
            try:
                await self._replicas.wait_ready(READY_WAIT_SECONDS)
            except TimeoutError:
                raise NoReplica("session") from None
            return self._replicas.pick()

    async def pick_another(self, tried: SessionReplica, error: ServiceError) -> SessionReplica:
        """Choose a replica after ``tried`` failed; raises ``error`` where none gets ready.

        Waits a moment for another one, or for ``tried`` once its connection was made anew.
        """
        lost = False
        try:
            async with asyncio.timeout(READY_WAIT_SECONDS):
                while True:
                    lost = lost or not tried.ready
                    if any(lost or replica is not tried for replica in self._replicas.ready()):
                        return self._replicas.pick(exclude=() if lost else (tried,))
                    await self._replicas.wait_changed()
        except TimeoutError:
            raise error from None


async def _on(
    replica: SessionReplica,
    select: Callable[[Stub], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
    request: Request,
    metadata: Metadata,
    deadline: float,
) -> Response:
    left = deadline - asyncio.get_running_loop().time()
    with replica.use():
        return await call_unary(
            select(replica.attachment), request, timeout=max(left, 0.001), metadata=metadata
        )
