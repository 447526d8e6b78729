"""How many asyncio tasks live, by kind: what shows that none is left behind.

A task's kind is the qualified name of its coroutine function, so that there are as
many as the code has, and no id is among them; a task's own name may hold one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class TaskCounts(Collector):
    """Shows the tasks that lived when it last looked."""

    def __init__(self) -> None:
        self._counts: Mapping[str, int] = {}

    def look(self) -> None:
        """Count the running loop's tasks, without the calling one."""
        asking = asyncio.current_task()
        # Replaced in whole: it is rendered in another thread.
        self._counts = Counter(_kind(task) for task in asyncio.all_tasks() if task is not asking)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give the counts to a registry."""
        family = GaugeMetricFamily(
            "parley_asyncio_tasks",
            "Tasks of the event loop that have not ended, by the coroutine that they run.",
            labels=["kind"],
        )
        for kind, count in sorted(self._counts.items()):
            family.add_metric([kind], count)
        yield family


def _kind(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__


TASK_COUNTS = TaskCounts()
REGISTRY.register(TASK_COUNTS)
