"""One engine as this replica sees it: its load reports and its models."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

import grpc.aio
from parley.inference.v1 import inference_pb2 as pb
from parley.inference.v1 import inference_pb2_grpc as pb_grpc

from parley_kit.errors import ServiceError
from parley_kit.rpc.client import call_unary, is_being_cancelled, open_stream
from parley_session.fleet.base import Model
from parley_session.fleet.scaling import EngineLoad

_log = logging.getLogger(__name__)

LIST_TIMEOUT = 5.0
# Reports come once a second at the least; an engine silent for so long is asked again.
SILENCE_SECONDS = 5.0
# Reports between two looks at the models: about half a minute, sooner under load.
REPORTS_PER_LISTING = 30
RETRY_SECONDS = 0.5


class Engine:
    """What is known of one engine, kept up to date by a task of its own.

    `listed` is called with its models whenever it has listed them.
    """

    def __init__(
        self, address: str, channel: grpc.aio.Channel, listed: Callable[[Iterable[Model]], None]
    ) -> None:
        self.address = address
        self._listed = listed
        self.stub = pb_grpc.InferenceServiceStub(channel)
        # The last report; kept, as `stale`, when no more come: an engine is not given up
        # for the loss of its reports.
        self.report: pb.LoadReport | None = None
        self.stale = False
        # When it began to take requests, or to take them again; in the loop's time.
        self.since = 0.0
        # By name; adapters are models of their own.
        self.models: dict[str, Model] = {}
        self._watching = asyncio.create_task(self._watch(), name=f"load of {address}")

    @property
    def draining(self) -> bool:
        """Whether it takes no new request."""
        return self._fresh is not None and self._fresh.draining

    @property
    def full(self) -> bool:
        """Whether its queue is full, as far as reported."""
        report = self._fresh
        return report is not None and report.waiting >= max(1, report.max_waiting)

    @property
    def incarnation(self) -> str:
        """Changes when its process does; empty: not known yet."""
        return self.report.replica_id if self.report else ""

    @property
    def kv_used_share(self) -> float:
        """Share of its KV cache in use, as last reported."""
        used = 1.0 - self.report.kv_free_ratio if self.report else 0.0
        # Also where no number was reported.
        return min(1.0, used) if used > 0 else 0.0

    @property
    def _fresh(self) -> pb.LoadReport | None:
        return None if self.stale else self.report

    def load(self, inflight: int) -> int:
        """Requests that it has; a report may lag behind what is `inflight` from here."""
        report = self._fresh
        return max(report.running + report.waiting if report else 0, inflight)

    @property
    def base_model(self) -> str:
        """Name of the model that it serves, adapters aside; empty: not known yet."""
        return self.report.models[0] if self.report and self.report.models else ""

    def as_load(self) -> EngineLoad:
        """Return its load as last reported."""
        report = self.report or pb.LoadReport()
        return EngineLoad(report.running, report.waiting, report.max_running, self.kv_used_share)

    def start_slowly(self) -> None:
        """Take note that it begins to take requests, or to take them again."""
        self.since = asyncio.get_running_loop().time()

    @property
    def capacity(self) -> int:
        """Requests that it batches at most."""
        return self.report.max_running if self.report else 1

    async def close(self) -> None:
        """Stop watching."""
        self._watching.cancel()
        await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow_reports()
            except (ServiceError, TimeoutError) as error:
                _log.debug("no load reports", extra={"address": self.address, "reason": str(error)})
            except asyncio.CancelledError:
                # Also what grpc.aio raises where a call is cancelled under its reader.
                if is_being_cancelled():
                    raise
                _log.debug("a call was cancelled", extra={"address": self.address})
            except Exception:  # noqa: BLE001 - whatever it is, the engine is watched on
                _log.exception("the watch over an engine failed", extra={"address": self.address})
            self.stale = True
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _follow_reports(self) -> None:
        stream = open_stream(self.stub.WatchLoad, pb.WatchLoadRequest(), timeout=None)
        reports = 0
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await anext(stream, None)
                if response is None:
                    return
                self._take(response.report)
                if reports % REPORTS_PER_LISTING == 0:
                    await self._list_models()
                reports += 1
        finally:
            stream.cancel()

    def _take(self, report: pb.LoadReport) -> None:
        if report.replica_id != self.incarnation:
            self.start_slowly()
        self.report = report
        self.stale = False

    async def _list_models(self) -> None:
        listed = await call_unary(
            self.stub.ListModels, pb.ListModelsRequest(), timeout=LIST_TIMEOUT
        )
        self.models = {model.model_id: _model(model) for model in listed.models}
        self._listed(self.models.values())


def _model(model: pb.Model) -> Model:
    return Model(
        id=model.model_id,
        context_length=model.context_length,
        engine=model.engine,
        revision=model.revision,
        tokenizer_id=model.tokenizer_id,
        external=model.external,
        adapters=tuple(model.adapters),
        base=model.base_model_id,
    )
