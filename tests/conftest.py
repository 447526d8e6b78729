"""Fixtures that every suite may ask for; each lives in a module of its own in `support`."""

pytest_plugins = [
    "support.blocking",
    "support.grpc_kept",
    "support.otlp",
    "support.servers",
    "support.redis8",  # after servers, which it imports
    "support.stack",
    "support.skips",
]
