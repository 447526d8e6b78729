"""Asks a replica of this host to stop, and waits until it has."""

from __future__ import annotations

import asyncio
import os
import signal

LOOK_SECONDS = 0.2


class NoReplicaHere(Exception):
    """There is no such process, or it is another's."""


async def drain(pid: int, seconds: float) -> bool:
    """Send SIGTERM and wait until the process has ended. False: it has not in `seconds`.

    It takes nothing new, lets its answers end within its grace period and hands the others
    over. Raises NoReplicaHere.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError) as error:
        raise NoReplicaHere(f"process {pid}: {error.strerror}") from error
    try:
        async with asyncio.timeout(seconds):
            while _runs(pid):  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return False
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
