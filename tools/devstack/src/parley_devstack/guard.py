"""Ends a stack whose devstack was killed.

The devstack starts one guard, and writes to its standard input `add PID` for each
process group it makes and `remove PID` for each it has ended. When the input ends
(the devstack is gone, however it went) the guard ends what is left, the latest first:
SIGTERM to each group's leader, and SIGKILL to the group when the grace is over.

    python guard.py GRACE_SECONDS
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable


def follow(lines: Iterable[str]) -> list[int]:
    """Reads the devstack's lines until they end; returns the groups that are left."""
    groups: list[int] = []
    for line in lines:
        verb, _, pid = line.strip().partition(" ")
        if verb == "add":
            groups.append(int(pid))
        elif verb == "remove" and int(pid) in groups:
            groups.remove(int(pid))
    return groups


def group_lives(group: int) -> bool:
    """Says whether any process of the group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(groups: list[int], grace: float) -> None:
    """Ends the groups, the latest first, within `grace` seconds in all."""
    for group in reversed(groups):
        for number in (signal.SIGTERM, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(group, number)
    deadline = time.monotonic() + grace
    while any(map(group_lives, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in reversed(groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Waits for the devstack's end. Signals meant for the devstack do not reach it here."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end(follow(sys.stdin), float(sys.argv[1]))


if __name__ == "__main__":
    main()
