"""Run a worker: `python -m parley_session.worker`.

A session replica without its gRPC face, with the same settings: it makes runs that wait,
takes over what was left, and sweeps. Session replicas do all of that as well; workers
are there where making answers is to be scaled apart from serving readers.
"""

from __future__ import annotations

import sys

from parley_session.__main__ import main
from parley_session.bootstrap import working

SERVICE = "parley-worker"

if __name__ == "__main__":
    sys.exit(main(working, SERVICE))
