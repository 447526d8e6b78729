"""The local index alone, of a million vectors or as many as are asked for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import psutil

from parley_cache.index.base import Item, Place
from parley_cache.index.local import LocalIndex
from parley_loadtest.cachebench import vectors
from parley_loadtest.cachebench.subjects.child import Work

_BATCH = 1_024
_NOMINEES = 8
_ASKED = 1_000
_TRUTHS = 100


async def measure(folder: Path, count: int) -> str:
    """Build it and ask it; give a sentence."""
    vectors.write(folder, count, _ASKED)
    work = Work.read(folder)
    index = LocalIndex(work.dimensions, max_items=count)
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    for start in range(0, count, _BATCH):
        rows = work.stored[start : start + _BATCH]
        await index.add_all(
            [Item(Place("t", "s", str(start + n)), row) for n, row in enumerate(rows)]
        )
        if start // _BATCH % 100 == 0:
            print(f"  {count}: {start} after {time.perf_counter() - began:.0f} s", flush=True)
    seconds = time.perf_counter() - began
    held = psutil.Process().memory_info().rss - before
    times, found = [], 0
    for place, asked in enumerate(work.asked):
        began = time.perf_counter()
        nominees = await index.nearest("t", "s", asked, _NOMINEES)
        times.append(time.perf_counter() - began)
        if place < _TRUTHS:
            likeness = work.stored @ asked
            truth = {str(row) for row in np.argpartition(-likeness, _NOMINEES)[:_NOMINEES]}
            found += len(truth & {one.entry_id for one in nominees})
    await index.close()
    p50, p99 = (1000 * float(np.percentile(times, percent)) for percent in (50, 99))
    return (
        f"local index, {count} vectors: nearest p50 {p50:.2f} ms, p99 {p99:.2f} ms, recall "
        f"{found / (_TRUTHS * _NOMINEES):.4f}, built in {seconds:.0f} s, {held / 2**20:.0f} MiB"
    )


def run(folder: Path, count: int) -> str:
    """As `measure`."""
    return asyncio.run(measure(folder, count))
