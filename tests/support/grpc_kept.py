"""Keeps gRPC's global state for the whole session.

Otherwise it goes with the last channel or server, whenever that is collected: in the middle
of some later test, whose event loop then waits for gRPC's own thread to end.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio
import pytest


@pytest.fixture(scope="session", autouse=True)
def _grpc_kept() -> Iterator[None]:
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()
