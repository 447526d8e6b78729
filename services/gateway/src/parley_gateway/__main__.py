"""Runs the gateway: ``python -m parley_gateway``."""

import asyncio
import sys

from parley_gateway.bootstrap import Gateway
from parley_gateway.config import GatewaySettings
from parley_kit.config import load_settings
from parley_kit.logs import setup_logging
from parley_kit.process import run
from parley_kit.telemetry import setup_telemetry


def main() -> int:
    """Run until a signal; returns the exit code."""
    settings = load_settings(GatewaySettings)
    setup_logging("parley-gateway", settings.log_level, settings.log_format)
    telemetry = setup_telemetry(
        "parley-gateway", settings.otlp_endpoint, sample_ratio=settings.trace_sample_ratio
    )

    async def serve(stop: asyncio.Event) -> None:
        gateway = Gateway(settings)
        try:
            await gateway.start()
            waits = [
                asyncio.create_task(stop.wait()),
                asyncio.create_task(gateway.wait_failed()),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            await gateway.drain()
            await gateway.stop()
        finally:
            await asyncio.to_thread(telemetry.shutdown)

    return run(serve)


if __name__ == "__main__":
    sys.exit(main())
