"""``parley.inference.v1.InferenceService`` on the wire."""

import asyncio
import time
from typing import Any, Final

import grpc.aio
from parley.inference.v1 import inference_pb2 as pb
from parley.inference.v1 import inference_pb2_grpc as pb_grpc

from parley_inference import errors
from parley_inference.bounds import Bounds, check_count
from parley_inference.door import Door
from parley_inference.engine.base import Engine, EngineBusy, RequestRefused
from parley_inference.generation import Generator
from parley_inference.load import LoadReporter
from parley_kit.errors import FieldError
from parley_kit.rpc.deadline import remaining

SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
# Methods whose streams last until either side ends them.
ENDLESS: Final = frozenset({"WatchLoad"})

_COUNT_SECONDS: Final = 10.0
# A load report is sent so often even if nothing has changed.
_REPORT_SECONDS: Final = 1.0


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """Translates calls; what they do is in ``generation``, ``door`` and ``load``."""

    def __init__(
        self,
        engine: Engine,
        door: Door,
        generator: Generator,
        *,
        bounds: Bounds,
        load_interval_seconds: float,
    ) -> None:
        self._engine = engine
        self._door = door
        self._generator = generator
        self._reporter = LoadReporter(engine, door)
        self._bounds = bounds
        self._load_interval = load_interval_seconds

    # Coroutines that write, not generators: a caller's leaving is raised inside them.
    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Stream an answer."""
        left = context.time_remaining()
        if left is None:
            raise errors.invalid(FieldError("deadline", "the call needs one"))
        await self._generator.serve(request, context.write, max(left, 0.0))

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        """Count tokens of messages."""
        messages, sampling = check_count(request, self._bounds)
        self._check_started()
        info = self._engine.info
        if not info.serves(request.model):
            raise errors.model_not_found(request.model)
        try:
            if sampling is not None:
                await self._engine.check(sampling)
            async with asyncio.timeout(remaining(context, _COUNT_SECONDS)):
                counts = await self._engine.count(messages)
        except RequestRefused as refusal:
            raise errors.invalid(FieldError(refusal.field, str(refusal))) from refusal
        except EngineBusy as busy:
            raise errors.overloaded(str(busy), busy.retry_after) from busy
        except TimeoutError as error:
            raise errors.timed_out() from error
        return pb.CountTokensResponse(
            tokens=counts.tokens,
            overhead_tokens=counts.overhead,
            tokenizer_id=info.tokenizer_id,
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListModelsResponse:
        """List what is served."""
        del request, context
        self._check_started()
        info = self._engine.info
        models = [
            pb.Model(
                model_id=name,
                context_length=info.context_length,
                engine=info.engine,
                revision=info.revision_of(name),
                tokenizer_id=info.tokenizer_id,
                adapters=() if name in info.adapters else info.adapters,
                base_model_id=info.model_id if name in info.adapters else "",
                external=info.external,
            )
            for name in (info.model_id, *info.adapters)
        ]
        return pb.ListModelsResponse(models=models)

    async def WatchLoad(  # type: ignore[override]
        self, request: pb.WatchLoadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Report the load for as long as both sides want it."""
        asked = request.min_interval_seconds
        if not 0 <= asked <= _REPORT_SECONDS:
            raise errors.invalid(
                FieldError("min_interval_seconds", f"must lie between 0 and {_REPORT_SECONDS:g}")
            )
        interval = asked or self._load_interval
        while True:
            version = self._door.version
            sent = time.monotonic()
            await context.write(pb.WatchLoadResponse(report=self._reporter.report()))
            await asyncio.sleep(interval)
            await self._door.change(version, _REPORT_SECONDS - (time.monotonic() - sent))

    def _check_started(self) -> None:
        if not self._door.max_running:
            raise errors.engine_unavailable(self._door.shut)
