"""OpenTelemetry tracing for a process.

With an endpoint, spans go there by OTLP over gRPC: in batches, from a thread of
their own, through a bounded queue that drops rather than waits. Without one no
span is recorded, but each request still has a trace id for the logs.
"""

import importlib.metadata
import logging

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from parley_kit.ids import uuid7

_log = logging.getLogger(__name__)

MAX_QUEUED_SPANS = 8192
_EXPORT_EVERY_MILLISECONDS = 1000
_EXPORT_TIMEOUT_SECONDS = 5


class Telemetry:
    """What was set up; ``shutdown`` sends what is left."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider

    def shutdown(self, timeout: float = 5.0) -> None:
        """Send the spans that are left, for ``timeout`` seconds at most. Blocks.

        On an event loop: ``await asyncio.to_thread(telemetry.shutdown)``.
        """
        if not self.provider.force_flush(timeout_millis=int(timeout * 1000)):
            _log.warning("not all spans could be sent before the process ended")
        self.provider.shutdown()


def setup_telemetry(
    service: str, otlp_endpoint: str = "", *, sample_ratio: float = 1.0
) -> Telemetry:
    """Install the process's tracer provider; call once, before the first span.

    ``sample_ratio``: share of the traces begun here that is recorded; a trace
    begun elsewhere follows its parent's decision.
    """
    resource = Resource.create(
        {
            "service.namespace": "parley",
            "service.name": service,
            "service.version": importlib.metadata.version("parley-kit"),
            "service.instance.id": uuid7(),
        }
    )
    if not otlp_endpoint:
        provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
        trace.set_tracer_provider(provider)
        return Telemetry(provider)
    provider = TracerProvider(
        resource=resource, sampler=ParentBased(TraceIdRatioBased(sample_ratio))
    )
    exporter = OTLPSpanExporter(
        endpoint=otlp_endpoint,
        insecure=otlp_endpoint.startswith("http://"),
        timeout=_EXPORT_TIMEOUT_SECONDS,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_QUEUED_SPANS,
            schedule_delay_millis=_EXPORT_EVERY_MILLISECONDS,
            export_timeout_millis=_EXPORT_TIMEOUT_SECONDS * 1000,
        )
    )
    trace.set_tracer_provider(provider)
    return Telemetry(provider)
