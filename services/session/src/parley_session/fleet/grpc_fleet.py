"""The fleet over gRPC: finding an engine, and drawing an answer from one after another.

Before the first token, any failure of an engine is answered by trying another one.
After it the answer is continued from its token ids, where the engine said that it can.
When no engine is left, one is waited for; the caller's deadline bounds it all.
Who is asked is decided by `choosing` and `outliers`, which do no I/O.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_kit.replicas import Replica, ReplicaSet, Resolver
from parley_kit.rpc.client import call_unary, open_stream
from parley_kit.rpc.security import Security
from parley_session import metrics
from parley_session.domain import errors
from parley_session.fleet import scaling
from parley_session.fleet.base import Draw, Model, TokenCounts
from parley_session.fleet.choosing import Candidate, Chooser, Strategy, ramp, room
from parley_session.fleet.drawing import NOT_TAKEN, Drawing
from parley_session.fleet.engine import Engine
from parley_session.fleet.known import KnownModels
from parley_session.fleet.outliers import OutlierLimits, Outliers
from parley_session.fleet.policy import EnginePolicy

_log = logging.getLogger(__name__)

# Seconds between two looks for an engine while there is none.
LOOK_SECONDS = 0.25
# Engines that one CountTokens call is tried on, and seconds that each but the last has:
# counting takes milliseconds, and one that is frozen says nothing.
MAX_COUNT_TRIES = 3
COUNT_TRY_SECONDS = 1.0
# The same where options are judged: an engine compiles a schema for five seconds at most.
CHECK_TRY_SECONDS = 6.0
# What is held against an engine, beside the loss of an answer.
_FAILED = frozenset({"unavailable", "engine_unavailable", "cancelled", "engine_lost", "internal"})


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How engines are chosen. `default_model`: empty means the first one listed."""

    default_model: str = ""
    strategy: Strategy = Strategy.AFFINITY
    # Time in which a new engine, or one that was taken back, comes to its full share.
    slow_start_seconds: float = 30.0
    outliers: OutlierLimits = field(default_factory=OutlierLimits)
    policy: EnginePolicy = field(default_factory=EnginePolicy)


class GrpcFleet:
    """Implements `Fleet`."""

    def __init__(
        self,
        resolver: Resolver,
        options: FleetOptions | None = None,
        security: Security | None = None,
    ) -> None:
        self._options = options or FleetOptions()
        self._policy = self._options.policy
        self._chooser = Chooser(self._options.strategy)
        self._outliers = Outliers(self._options.outliers)
        self._known = KnownModels()
        # What an engine of each base model batches, as last seen.
        self._capacities: dict[str, int] = {}
        self._replicas: ReplicaSet[Engine] = ReplicaSet(
            resolver,
            name="inference",
            health_service="parley.inference.v1.InferenceService",
            attach=lambda address, channel: Engine(address, channel, self._known.note),
            detach=Engine.close,
            security=security,
        )

    async def start(self) -> None:
        """Begin to look for engines; does not wait for any."""
        await self._replicas.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._replicas.stop()

    # models -------------------------------------------------------------------

    async def models(self, tenant: str = "") -> Sequence[Model]:
        """See `Fleet.models`."""
        served: dict[str, Model] = {}
        for replica in self._replicas.ready():
            for name, model in replica.attachment.models.items():
                if self._policy.allows(tenant, model):
                    served.setdefault(name, model)
        return [served[name] for name in sorted(served)]

    async def find(self, model: str, tenant: str = "") -> Model:
        """See `Fleet.find`."""
        name = model or self._options.default_model or await self._first_model(tenant)
        for replica in self._replicas.ready():
            found = replica.attachment.models.get(name)
            if found is not None and self._policy.allows(tenant, found):
                return found
        known = self._known.of(name)
        if known and not any(self._policy.allows(tenant, found) for found in known):
            raise errors.model_not_allowed(name)
        # While no engine is ready, nobody can say what they serve.
        told = any(replica.attachment.models for replica in self._replicas.ready())
        if told and not known and name != self._options.default_model:
            raise errors.model_not_found(name)
        raise errors.engine_unavailable()

    def room(self, model: str, tenant: str | None = None) -> int:
        """See `Fleet.room`."""
        return sum(
            room(r.attachment.capacity, r.attachment.load(r.inflight))
            for r in self._able(model, tenant=tenant)
            if not r.attachment.full
        )

    def has_own(self, model: str, tenant: str) -> bool:
        """See `Fleet.has_own`."""
        return any(_is_own(r, model) for r in self._able(model, tenant=tenant))

    def capacity(self, model: str, tenant: str | None = None) -> int:
        """See `Fleet.capacity`."""
        return sum(r.attachment.capacity for r in self._able(model, tenant=tenant))

    def demand(self, queued: int) -> Mapping[str, float]:
        """See `Fleet.demand`."""
        serving: dict[str, list[Engine]] = {}
        for replica in self._replicas.ready():
            engine = replica.attachment
            if engine.base_model and not engine.draining:
                serving.setdefault(engine.base_model, []).append(engine)
                self._capacities[engine.base_model] = engine.capacity
        loads = {
            model: [engine.as_load() for engine in serving.get(model, ())]
            for model in self._capacities
        }
        work = {model: scaling.demand(found) for model, found in loads.items()}
        short = [model for model in work if self.room(model) <= 0] or list(work)
        total = sum(work[model] for model in short)
        for model in short:
            share = work[model] / total if total else 1 / len(short)
            work[model] = scaling.demand(
                loads[model], round(queued * share), self._capacities[model]
            )
        return work

    async def _first_model(self, tenant: str) -> str:
        listed = await self.models(tenant)
        if not listed:
            raise errors.engine_unavailable()
        return next((model for model in listed if not model.base), listed[0]).id

    # tokens -------------------------------------------------------------------

    async def count_tokens(
        self, model: str, messages: Sequence[pb.ChatMessage], timeout: float, tenant: str = ""
    ) -> TokenCounts:
        """See `Fleet.count_tokens`."""
        request = pb.CountTokensRequest(model=model, messages=messages)
        counts = await self._count(request, timeout, tenant, COUNT_TRY_SECONDS)
        return TokenCounts(tuple(counts.tokens), counts.overhead_tokens, counts.tokenizer_id)

    async def check_sampling(
        self, model: str, sampling: pb.SamplingOptions, timeout: float, tenant: str = ""
    ) -> None:
        """See `Fleet.check_sampling`."""
        any_message = pb.ChatMessage(role=pb.ROLE_USER, content="?")
        request = pb.CountTokensRequest(model=model, messages=[any_message], sampling=sampling)
        await self._count(request, timeout, tenant, CHECK_TRY_SECONDS)

    async def _count(
        self, request: pb.CountTokensRequest, timeout: float, tenant: str, try_seconds: float
    ) -> pb.CountTokensResponse:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        tried: set[str] = set()
        while len(tried) < MAX_COUNT_TRIES and (left := deadline - loop.time()) > 0:
            able = self._able(request.model, tried, tenant)
            if not able:
                break
            last = len(able) == 1 or len(tried) + 1 == MAX_COUNT_TRIES
            replica = min(able, key=lambda r: r.attachment.load(r.inflight))
            tried.add(replica.address)
            try:
                counts = await call_unary(
                    replica.attachment.stub.CountTokens,
                    request,
                    timeout=left if last else min(left, try_seconds),
                )
                if len(counts.tokens) == len(request.messages):
                    return counts
            except ServiceError as error:
                if error.code not in NOT_TAKEN and error.code != "timed_out":
                    raise
                continue
        raise errors.engine_unavailable()

    # drawing ------------------------------------------------------------------

    async def draw(self, draw: Draw) -> AsyncGenerator[pb.GenerateResponse, None]:
        """See `Fleet.draw`."""
        drawing = Drawing(draw, own_fleet_only=self._policy.own_only(draw.tenant))
        while True:
            replica = await self._place(drawing, draw.affinity)
            stream = open_stream(
                replica.attachment.stub.Generate, drawing.next_request(), timeout=draw.time_left()
            )
            replica.track(stream)
            draw.placed()
            served = failed = False
            try:
                async for event in stream:
                    if not served:
                        served = True
                        self._note_served(replica, draw.affinity)
                    if drawing.take(event):
                        yield event
                if drawing.finished:
                    return
                raise errors.engine_lost("an engine ended an answer without a finish")
            except ServiceError as error:
                failed = True
                self._note_failed(replica, error)
                if drawing.finished:
                    # All of it is there, whatever came after it.
                    return
                # Raises what cannot be mended elsewhere.
                drawing.failed(error, replica.address)
            finally:
                stream.cancel()
                if not served and not failed:
                    # Given up by whoever asked: that tells nothing of the engine.
                    self._outliers.untried(replica.address)

    async def _place(self, drawing: Drawing, affinity: str) -> Replica[Engine]:
        """Choose an engine that was not tried yet; when all were, wait and begin again."""
        while True:
            able = self._able(drawing.request.model, drawing.tried, drawing.tenant)
            if drawing.tentative():
                able = [r for r in able if _is_own(r, drawing.request.model)]
            same = [r for r in able if drawing.takes(r.attachment)]
            if able and not same and drawing.forget_revision():
                continue
            choice = self._chooser.choose(affinity, self._candidates(same))
            if choice is not None:
                metrics.ENGINE_CHOICES.labels(choice.why).inc()
                self._outliers.trying(choice.address, self._now())
                return next(r for r in same if r.address == choice.address)
            await self._wait_for_change()
            drawing.tried.clear()

    async def _wait_for_change(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._replicas.wait_changed()
        except TimeoutError:
            # Queues empty and models load without a replica coming or going.
            return

    def _candidates(self, replicas: Sequence[Replica[Engine]]) -> list[Candidate]:
        now, slow_start = self._now(), self._options.slow_start_seconds
        return [
            Candidate(
                replica.address,
                replica.attachment.load(replica.inflight),
                replica.attachment.capacity,
                ramp(now - replica.attachment.since, slow_start),
                replica.attachment.incarnation,
            )
            for replica in replicas
        ]

    def _able(
        self, model: str, tried: Collection[str] = (), tenant: str | None = None
    ) -> list[Replica[Engine]]:
        """List the engines that can take a request for a model and were not `tried`.

        None as `tenant`: whoever asks.
        """
        serving = {
            replica.address: replica
            for replica in self._replicas.ready()
            if not replica.attachment.draining and self._serves(replica.attachment, model, tenant)
        }
        able = self._outliers.able(list(serving), self._now())
        return [serving[address] for address in able if address not in tried]

    def _serves(self, engine: Engine, model: str, tenant: str | None) -> bool:
        if not model:
            return True
        found = engine.models.get(model)
        return found is not None and (tenant is None or self._policy.allows(tenant, found))

    # outliers -----------------------------------------------------------------

    def _note_served(self, replica: Replica[Engine], affinity: str) -> None:
        self._chooser.drawn(affinity, replica.address, replica.attachment.incarnation)
        if self._outliers.succeeded(replica.address):
            replica.attachment.start_slowly()
            _log.info("an engine is taken back", extra={"address": replica.address})

    def _note_failed(self, replica: Replica[Engine], error: ServiceError) -> None:
        if error.code not in _FAILED:
            return
        self._outliers.keep(frozenset(r.address for r in self._replicas.all()))
        if self._outliers.failed(replica.address, self._now()):
            metrics.ENGINE_EJECTIONS.inc()
            _log.warning(
                "an engine is left alone for a while",
                extra={"address": replica.address, "code": error.code},
            )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _is_own(replica: Replica[Engine], model: str) -> bool:
    return not replica.attachment.models[model].external
