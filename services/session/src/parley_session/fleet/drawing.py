"""One answer as it is drawn from one engine after another: what is had, and what a failure means.

Before the first token, any failure of an engine is answered by trying another one.
After it the answer is continued from its token ids, where the engine said that it can.
"""

from __future__ import annotations

import logging

from parley.inference.v1 import inference_pb2 as pb

from parley_kit.errors import ServiceError
from parley_session import metrics
from parley_session.domain import errors
from parley_session.fleet.base import Draw
from parley_session.fleet.engine import Engine

_log = logging.getLogger(__name__)

# Engines that may die under one answer before it is given up: it may be what kills them.
MAX_LOSSES = 3
# Engines that may turn one request away, though they seemed ready, before it is given up;
# those that are merely full are asked again until the deadline.
MAX_REFUSALS = 8

# The engine did not take the request: another one may.
NOT_TAKEN = frozenset(
    {
        "engine_unavailable",
        "unavailable",
        "overloaded",
        "cancelled",
        "model_revision_mismatch",
        "external_engine",
    }
)
# The engine, or the way to it, was lost in mid-answer, or does not make sense.
_LOST = frozenset({"engine_lost", "unavailable", "engine_unavailable", "cancelled", "internal"})


class Drawing:
    """What is known of an answer that is drawn. `request` grows by the tokens drawn."""

    def __init__(self, draw: Draw, *, own_fleet_only: bool) -> None:
        self.request = pb.GenerateRequest()
        self.request.CopyFrom(draw.request)
        self._own_fleet_only = own_fleet_only
        self.tentative = draw.tentative
        self.tenant = draw.tenant
        # Addresses of engines that are not to be tried again in this round.
        self.tried: set[str] = set()
        self.finished = False
        self._request_id = draw.request_id
        self._tries = 0
        # Tokens that were there when the try began.
        self._had = 0
        self._told_start = False
        # What exists already was found continuable by whoever goes on with it.
        self._continuation = pb.CONTINUATION_SAMPLED
        # Bytes of the answer so far.
        self._length = draw.offset
        self._losses = 0
        self._refusals = 0

    @property
    def begun(self) -> bool:
        """Whether there is any token of the answer."""
        return bool(self.request.generated_token_ids)

    def next_request(self) -> pb.GenerateRequest:
        """Return the request of the next try."""
        self._tries += 1
        self._had = len(self.request.generated_token_ids)
        self.request.request_id = f"{self._request_id}:{self._tries}"
        # Said to the engine as well: what is known of it here may be old.
        self.request.own_fleet_only = self._own_fleet_only or self.tentative()
        return self.request

    def takes(self, engine: Engine) -> bool:
        """Whether an engine serves the model in the revision that the answer needs."""
        revision = self.request.model_revision
        return not revision or engine.models[self.request.model].revision == revision

    def forget_revision(self) -> bool:
        """Take any revision: the model was exchanged, and nothing is drawn from the old one."""
        if self.begun or not self.request.model_revision:
            return False
        self.request.model_revision = ""
        return True

    def take(self, event: pb.GenerateResponse) -> bool:
        """Take note of an event; whether it is news to the reader.

        Raises `engine_lost` for one that does not follow what was drawn so far.
        """
        kind = event.WhichOneof("event")
        if self.finished:
            raise errors.engine_lost("an engine went on after the end of an answer")
        if kind == "chunk":
            chunk = event.chunk
            if chunk.offset != self._length:
                raise errors.engine_lost("an engine's text does not follow the answer so far")
            text = chunk.text
            self._length += len(text) if text.isascii() else len(text.encode())
            self.request.generated_token_ids.extend(chunk.token_ids)
            return True
        if kind == "started":
            self._continuation = event.started.continuation
            news, self._told_start = not self._told_start, True
            return news
        self.finished = kind == "finished"
        return True

    def failed(self, error: ServiceError, address: str) -> None:
        """Judge the failure of a try: returns if another engine is to be tried, else raises."""
        moved = len(self.request.generated_token_ids) > self._had
        if error.code in NOT_TAKEN and not moved:
            self.tried.add(address)
            self._refusals += error.code != "overloaded"
        elif error.code in _LOST:
            self.tried = {address}
            self._losses += 1
        elif error.code == "continuation_unsupported":
            raise errors.engine_lost("no engine can continue this answer") from error
        else:
            raise error
        if self._refusals >= MAX_REFUSALS:
            raise errors.engine_unavailable() from error
        continuable = self._continuation != pb.CONTINUATION_NONE or not self.begun
        if self._losses >= MAX_LOSSES or not continuable:
            raise errors.engine_lost("the engine of this answer was lost") from error
        metrics.ENGINE_RETRIES.labels(error.code, str(self.begun).lower()).inc()
        _log.warning(
            "trying another engine",
            extra={"address": address, "code": error.code, "begun": self.begun},
        )
