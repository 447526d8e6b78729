"""Load reports: what a replica says of itself to those who choose among replicas."""

import itertools

from parley.inference.v1 import inference_pb2 as pb

from parley_inference.door import Door
from parley_inference.engine.base import Engine
from parley_kit.ids import uuid7


class LoadReporter:
    """Makes reports of one replica; its id is that of this process."""

    def __init__(self, engine: Engine, door: Door) -> None:
        self._engine = engine
        self._door = door
        self._replica_id = uuid7()
        self._sequence = itertools.count(1)

    def report(self) -> pb.LoadReport:
        """The load now. A replica that lets nobody in reports that it drains."""
        door = self._door
        started = door.max_running > 0
        return pb.LoadReport(
            replica_id=self._replica_id,
            sequence=next(self._sequence),
            running=door.running,
            waiting=door.waiting,
            queued_tokens=door.queued_tokens,
            kv_free_ratio=self._engine.kv_free_ratio,
            draining=door.draining or bool(door.shut),
            max_running=door.max_running,
            max_waiting=door.max_waiting,
            tokens_per_second=door.tokens_per_second(),
            models=self._models() if started else [],
        )

    def _models(self) -> list[str]:
        info = self._engine.info
        return [info.model_id, *info.adapters]
