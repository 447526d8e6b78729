"""Run the session service: `python -m parley_session`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from parley_kit.config import load_settings
from parley_kit.logs import setup_logging
from parley_kit.process import run
from parley_kit.telemetry import setup_telemetry
from parley_session.bootstrap import serving
from parley_session.config import SessionSettings

SERVICE = "parley-session"


def main(
    replica: Callable[[SessionSettings], AbstractAsyncContextManager[object]] = serving,
    service: str = SERVICE,
) -> int:
    """Run a replica until SIGTERM or SIGINT; give the exit code."""
    settings = load_settings(SessionSettings)
    setup_logging(service, settings.log_level, settings.log_format)
    telemetry = setup_telemetry(
        service, settings.otlp_endpoint, sample_ratio=settings.trace_sample_ratio
    )

    async def work(stop: asyncio.Event) -> None:
        async with replica(settings):
            await stop.wait()
        await asyncio.to_thread(telemetry.shutdown)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
