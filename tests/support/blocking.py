"""A call that blocks an event loop fails the test in which it happens.

For every test, blockbuster turns a blocking call (sleep, file, socket,
subprocess pipe, contended lock) made on a running event loop into an error, if
code of the platform is on the stack. The error may be caught on its way (a
server answers INTERNAL), so each is also noted and fails the test at its end.

Not looked at: test code itself, the load test (gevent), and the devstack (a
tool whose loop serves nobody). A test of something that has to block says
``@pytest.mark.blocking_allowed`` and why.
"""

import importlib.util
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, BlockingError

SCANNED = ("parley_kit", "parley_gateway", "parley_session", "parley_cache", "parley_inference")

# Blocking that is right where it is. Everything here has its reason.
ALLOWED: dict[str, list[tuple[str, str]]] = {
    # A log line is written where it is made (parley_kit.logs says why).
    "io.TextIOWrapper.write": [("logging/__init__.py", "emit")],
    "io.BufferedWriter.write": [("logging/__init__.py", "emit")],
    # MongoDB's driver looks what it runs in when it first connects.
    # FastAPI looks up a handler's source, for its messages, on the first call of each route.
    "os.stat": [
        ("pymongo/pool_options.py", "get_container_env_info"),
        ("fastapi/routing.py", "_extract_endpoint_context"),
    ],
    "io.BufferedReader.read": [("fastapi/routing.py", "_extract_endpoint_context")],
    "io.TextIOWrapper.read": [("fastapi/routing.py", "_extract_endpoint_context")],
}


def _installed() -> list[str]:
    return [name for name in SCANNED if importlib.util.find_spec(name) is not None]


@pytest.fixture(scope="session")
def _blockbuster() -> BlockBuster:
    buster = BlockBuster(_installed())
    for function, places in ALLOWED.items():
        for filename, caller in places:
            buster.functions[function].can_block_in(filename, caller)
    return buster


@pytest.fixture(autouse=True)
def no_blocking_calls(
    request: pytest.FixtureRequest, _blockbuster: BlockBuster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[BlockingError]]:
    """Make blocking calls on an event loop fail the test; yield those seen so far."""
    seen: list[BlockingError] = []
    if request.node.get_closest_marker("blocking_allowed"):
        yield seen
        return
    create = BlockingError.__init__

    def note(error: BlockingError, func: str) -> None:
        create(error, func)
        seen.append(error)

    monkeypatch.setattr(BlockingError, "__init__", note)
    _blockbuster.activate()
    try:
        yield seen
    finally:
        _blockbuster.deactivate()
    if seen:
        pytest.fail(f"blocked the event loop: {', '.join(str(error) for error in seen)}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "blocking_allowed: this test may block its event loop")
