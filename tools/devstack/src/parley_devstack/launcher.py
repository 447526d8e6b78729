"""Becomes another program that ends when its parent does (Linux; elsewhere the guard sees to it).

    python launcher.py PARENT_PID PROGRAM ARGUMENT…

Only the standard library, no imports from here: it must start in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for SIGTERM on the parent's death, then executes the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - the program is the devstack's own


if __name__ == "__main__":
    main()
