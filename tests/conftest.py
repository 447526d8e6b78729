"""Fixtures that every suite may ask for; each lives in a module of its own in `support`."""

from hypothesis import HealthCheck, settings

# No test asserts a time, and other work may hold one up.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = [
    "support.blocking",
    "support.grpc_kept",
    "support.otlp",
    "support.ports",
    "support.servers",
    "support.redis8",  # after servers, which it imports
    "support.stack",
    "support.skips",
    "support.telling",
]
