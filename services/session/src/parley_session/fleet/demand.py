"""Tells Prometheus how much work there is, again and again."""

from __future__ import annotations

import asyncio
import logging

from parley_session import metrics
from parley_session.fleet.base import Fleet
from parley_session.queue.base import QueueUnavailable, RunQueue

_log = logging.getLogger(__name__)

# Seconds between two looks; autoscalers ask every 5 to 30.
PERIOD_SECONDS = 2.0


async def report_demand(fleet: Fleet, queue: RunQueue) -> None:
    """Keep the gauges up to date until cancelled. While the queue is away its last size stands."""
    queued = 0
    while True:
        try:
            queued = await queue.size()
        except QueueUnavailable as error:
            _log.debug("the size of the queue is not known", extra={"reason": str(error)})
        metrics.QUEUE_SIZE.set(queued)
        for model, engines in fleet.demand(queued).items():
            metrics.ENGINE_DEMAND.labels(model).set(engines)
        await asyncio.sleep(PERIOD_SECONDS)
