"""The whole platform as processes, for end-to-end tests.

`sim_stack` and `vllm_stack` run for the whole session and are shared: a test that hurts a
part heals it (`start_one`) before it ends. `make_stack` gives a test a stack of its own,
with `sim`, ended with the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from parley_devstack.config import StackConfig
from parley_devstack.environments import inference
from parley_devstack.models import is_there
from parley_devstack.stack import Stack

# Fast, yet with a first token that can be told from the rest. `[[sim:…]]` directives are
# obeyed, so that a test can have a slow or a failing answer.
SIM = {
    "PARLEY_INFERENCE_SIM_TTFT": "0.02",
    "PARLEY_INFERENCE_SIM_ITL": "0.005",
    "PARLEY_INFERENCE_SIM_FAULTS": "true",
}
MakeStack = Callable[..., Awaitable[Stack]]


def sim_config(folder: Path, **settings: object) -> StackConfig:
    """Returns a stack on `sim` with all its files in `folder`."""
    given = settings.pop("env", {})
    assert isinstance(given, dict)
    env = {**given, "inference": {**SIM, **given.get("inference", {})}}
    defaults: dict[str, object] = {"engine": "sim", "start_seconds": 180.0, "stop_seconds": 10.0}
    return StackConfig.in_folder(folder, **{**defaults, **settings, "env": env})


@pytest.fixture(scope="session")
def sim_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of each part and two sessions, on `sim`."""
    yield from running(Stack(sim_config(tmp_path_factory.mktemp("sim"), sessions=2)))


@pytest.fixture(scope="session")
def vllm_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of each part, answering with SmolLM2 on vLLM."""
    config = StackConfig.in_folder(
        tmp_path_factory.mktemp("vllm"), engine="vllm", start_seconds=600.0, stop_seconds=20.0
    )
    python = inference(config.paths, gpu=False).python
    if not python.exists() or not is_there(config.paths):
        pytest.skip("needs the inference environment and the model: make setup")
    yield from running(Stack(config))


@pytest.fixture
async def make_stack(tmp_path: Path) -> AsyncIterator[MakeStack]:
    """Makes and starts stacks that end with the test; takes StackConfig's settings."""
    started: list[Stack] = []

    async def make(**settings: object) -> Stack:
        folder = tmp_path / f"stack-{len(started) + 1}"
        stack = Stack(sim_config(folder, **settings))
        started.append(stack)
        await stack.start()
        return stack

    yield make
    for stack in reversed(started):
        await stack.stop()


def running(stack: Stack) -> Iterator[Stack]:
    """What a fixture that many tests share yields from: a stack, ended after them."""
    asyncio.run(stack.start())
    try:
        yield stack
    finally:
        asyncio.run(stack.stop())
