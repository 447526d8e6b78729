"""The time that a call has left."""

from typing import Any

import grpc.aio


def remaining(context: grpc.aio.ServicerContext[Any, Any], default: float) -> float:
    """Seconds until the caller's deadline, or ``default`` where it gave none.

    Never negative. Pass it (less what is needed to answer) to the next call, so
    that the budget travels on.
    """
    left: float | None = context.time_remaining()
    return default if left is None else max(0.0, left)
