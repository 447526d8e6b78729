"""Channel and server arguments that both ends must agree on."""

from typing import Any, Final

# Largest message either end takes, bytes. A chat page of long messages is the
# largest there is.
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

# Header block, bytes. gRPC's default of 8 KiB is less than a described error
# of many fields may need.
MAX_METADATA_BYTES: Final = 32 * 1024

KEEPALIVE_SECONDS: Final = 20.0
KEEPALIVE_TIMEOUT_SECONDS: Final = 10.0
# A server ends connections that ping more often than this; clients ping every
# KEEPALIVE_SECONDS, also without a call, to find a dead peer before one fails.
MIN_PING_INTERVAL_SECONDS: Final = 10.0

Options = list[tuple[str, Any]]


def _milliseconds(seconds: float) -> int:
    return max(1, min(int(seconds * 1000), 2**31 - 1))


def _common(max_message_bytes: int) -> Options:
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def client_options(max_message_bytes: int) -> Options:
    """Arguments of a channel."""
    return [
        *_common(max_message_bytes),
        # Only what no handler has seen, such as a call that crossed the end of an old
        # connection: other retrying is decided by callers, who know what may be repeated,
        # so no service configuration asks for any.
        ("grpc.enable_retries", 1),
        # A replica that comes back is found within a second or two.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


def server_options(
    max_message_bytes: int, max_connection_age: float, max_connection_age_grace: float
) -> Options:
    """Arguments of a server; ages in seconds."""
    return [
        *_common(max_message_bytes),
        # With SO_REUSEPORT a second server would take half of the first one's
        # connections where it should fail to start.
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_age_ms", _milliseconds(max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(max_connection_age_grace)),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _milliseconds(MIN_PING_INTERVAL_SECONDS),
        ),
    ]
