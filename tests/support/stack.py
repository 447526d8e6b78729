"""The whole platform as processes, for end-to-end tests.

With a test that fails, what became of the parts is told, and the last lines of their logs.

`sim_stack` and `vllm_stack` run for the whole session and are shared: a test that hurts a
part heals it (`start_one`) before it ends; what a test has ended of `vllm_stack`, the next
one starts. `make_stack` gives a test a stack of its own, with `sim`, ended with the test.

They share the session's MongoDB, each with a database of its own, unless a test asks for one
to hurt: its Java machine is the slowest thing to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from parley_devstack.config import StackConfig
from parley_devstack.environments import inference
from parley_devstack.models import is_there
from parley_devstack.process import tail
from parley_devstack.stack import Stack
from support.otlp import Collector
from support.servers import MongoServer, fresh_database

# Fast, yet with a first token that can be told from the rest. `[[sim:…]]` directives are
# obeyed, so that a test can have a slow or a failing answer.
SIM = {
    "PARLEY_INFERENCE_SIM_TTFT": "0.02",
    "PARLEY_INFERENCE_SIM_ITL": "0.005",
    "PARLEY_INFERENCE_SIM_FAULTS": "true",
}
# What the stacks that many tests share are told: however slow the machine's disk and cores.
PATIENT = {
    "PARLEY_SESSION_MONGODB_TIMEOUT_SECONDS": "20",
    "PARLEY_SESSION_COUNT_TIMEOUT_SECONDS": "20",
}
# Each start of vLLM takes a minute: one engine serves the tests of the engine and of the platform.
VLLM_MODEL = "smol"
VLLM = {
    "PARLEY_INFERENCE_MAX_MODEL_LEN": "2048",
    "PARLEY_INFERENCE_MAX_NUM_SEQS": "16",
    # However slow the machine.
    "PARLEY_INFERENCE_GRAMMAR_SECONDS": "60",
}
MakeStack = Callable[..., Awaitable[Stack]]
# Lines of each part's log that are shown with a test that failed.
LOG_LINES = 15

_RUNNING: list[Stack] = []
# Gives settings of a stack.
LendMongoDB = Callable[[], AbstractContextManager[dict[str, str]]]


def sim_config(folder: Path, **settings: object) -> StackConfig:
    """Returns a stack on `sim` with all its files in `folder`."""
    given = settings.pop("env", {})
    assert isinstance(given, dict)
    env = {**given, "inference": {**SIM, **given.get("inference", {})}}
    defaults: dict[str, object] = {"engine": "sim", "start_seconds": 180.0, "stop_seconds": 10.0}
    return StackConfig.in_folder(folder, **{**defaults, **settings, "env": env})


@pytest.fixture(scope="session")
def lend_mongodb(mongodb_uri: str, mongodb_server: MongoServer | None) -> LendMongoDB:
    """Lends a stack an empty database on the session's MongoDB."""

    @contextlib.contextmanager
    def lend() -> Iterator[dict[str, str]]:
        with fresh_database(mongodb_uri, mongodb_server) as made:
            yield {"mongodb_uri": made.uri, "mongodb_database": made.name}

    return lend


@pytest.fixture(scope="session")
def sim_stack(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB
) -> Iterator[Stack]:
    """One of each part and two sessions, on `sim`."""
    with lend_mongodb() as lent:
        env = {"session": PATIENT}
        config = sim_config(tmp_path_factory.mktemp("sim"), sessions=2, env=env, **lent)
        yield from running(Stack(config))


@pytest.fixture(scope="session")
def one_vllm_stack(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB, vllm_traces: Collector
) -> Iterator[Stack]:
    """One of each part, answering with SmolLM2 on vLLM, with traces exported."""
    endpoint = vllm_traces.endpoint
    env = {
        kind: {f"PARLEY_{kind.upper()}_OTLP_ENDPOINT": endpoint}
        for kind in ("gateway", "session", "inference")
    }
    env["session"] |= PATIENT
    with lend_mongodb() as lent:
        model = os.environ.get("PARLEY_TEST_MODEL", "")
        config = StackConfig.in_folder(
            tmp_path_factory.mktemp("vllm"),
            engine="vllm",
            model=model,
            model_id=VLLM_MODEL,
            start_seconds=600.0,
            stop_seconds=20.0,
            env=env | {"inference": env["inference"] | VLLM},
            **lent,
        )
        python = inference(config.paths, gpu=False).python
        if not python.exists() or not (model or is_there(config.paths)):
            pytest.fail("needs the inference environment and the model: make setup")
        yield from running(Stack(config))


@pytest.fixture
async def vllm_stack(one_vllm_stack: Stack) -> Stack:
    """The session's stack on vLLM, whole: what a test has ended is started by the next one."""
    for name in one_vllm_stack.names:
        if one_vllm_stack.pid(name) is None:
            await one_vllm_stack.start_one(name)
    return one_vllm_stack


@pytest.fixture
async def make_stack(tmp_path: Path, lend_mongodb: LendMongoDB) -> AsyncIterator[MakeStack]:
    """Makes and starts stacks that end with the test; takes StackConfig's settings.

    `own_mongodb`: one that the test may hurt.
    """
    started: list[Stack] = []
    lent = contextlib.ExitStack()

    async def make(*, own_mongodb: bool = False, **settings: object) -> Stack:
        if not own_mongodb:
            settings |= await asyncio.to_thread(lent.enter_context, lend_mongodb())
        stack = Stack(sim_config(tmp_path / f"stack-{len(started) + 1}", **settings))
        started.append(stack)
        _RUNNING.append(stack)
        await stack.start()
        return stack

    yield make
    for stack in reversed(started):
        _RUNNING.remove(stack)
        await stack.stop()
    await asyncio.to_thread(lent.close)


def running(stack: Stack) -> Iterator[Stack]:
    """What a fixture that many tests share yields from: a stack, ended after them."""
    asyncio.run(stack.start())
    _RUNNING.append(stack)
    try:
        yield stack
    finally:
        _RUNNING.remove(stack)
        asyncio.run(stack.stop())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell of the stacks that run, with a test that failed on one."""
    report = yield
    if report.failed and report.when == "call":
        report.sections += [(f"stack {stack.url}", _told(stack)) for stack in _RUNNING]
    return report


def _told(stack: Stack) -> str:
    lines: list[str] = asyncio.run(stack.died())
    for name in stack.names:
        lines.append(f"{name}: {stack.state(name)}, exit code {stack.exit_code(name)}")
        lines += [f"  {line}" for line in tail(stack.plan(name).log, LOG_LINES)]
    return "\n".join(lines)
