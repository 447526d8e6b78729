"""Run the cache service: `python -m parley_cache`."""

from __future__ import annotations

import asyncio
import sys

from parley_cache.bootstrap import serving
from parley_cache.config import CacheSettings
from parley_kit.config import load_settings
from parley_kit.logs import setup_logging
from parley_kit.process import run
from parley_kit.telemetry import setup_telemetry

SERVICE = "parley-cache"


def main() -> int:
    """Serve until SIGTERM or SIGINT; give the exit code."""
    settings = load_settings(CacheSettings)
    setup_logging(SERVICE, settings.log_level, settings.log_format)
    telemetry = setup_telemetry(
        SERVICE, settings.otlp_endpoint, sample_ratio=settings.trace_sample_ratio
    )

    async def serve(stop: asyncio.Event) -> None:
        async with serving(settings):
            await stop.wait()
        await asyncio.to_thread(telemetry.shutdown)

    return run(serve)


if __name__ == "__main__":
    sys.exit(main())
