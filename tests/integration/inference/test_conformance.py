"""Every engine behaves as the contract says, each as a process of its own over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from parley_devstack.paths import checkout
from support.conformance import BEHAVIOURS, ConformanceTable, Subject
from support.fake_upstream import CONTEXT, upstream_process
from support.fake_upstream import MODEL as FAKE_MODEL
from support.inference import Client, ReplicaProcess, connect
from support.stack import VLLM_MODEL as MODEL
from support.vllm import START_SECONDS, vllm_process

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SIM = {"ENGINE": "sim", "MODEL_ID": "sim", "MAX_MODEL_LEN": "4096", "SIM_TTFT": "0.01"}
ENGINES = [
    "sim",
    "openai",
    "openai, plain",
    pytest.param("vllm", marks=pytest.mark.vllm),
]


def _settings(values: dict[str, str]) -> dict[str, str]:
    return {f"PARLEY_INFERENCE_{name}": value for name, value in values.items()}


def _subject(engine: str) -> Subject:
    if engine == "vllm":
        return Subject(engine, MODEL, 2048)
    return Subject(engine, "sim" if engine == "sim" else FAKE_MODEL, CONTEXT)


def _process(engine: str, folder: Path, upstream: str) -> ReplicaProcess:
    if engine == "vllm":
        return vllm_process(folder)
    if engine == "sim":
        return ReplicaProcess(_settings({**SIM, "SIM_ITL": "0.005"}), folder / "log")
    settings = {
        "ENGINE": "openai",
        "MODEL": FAKE_MODEL,
        "UPSTREAM_URL": upstream,
        "UPSTREAM_DIALECT": "openai" if "plain" in engine else "vllm",
        "MAX_NUM_SEQS": "16",
    }
    return ReplicaProcess(_settings(settings), folder / "log")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module", params=ENGINES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: str
) -> Iterator[tuple[Subject, ReplicaProcess]]:
    engine = request.param
    process = _process(engine, tmp_path_factory.mktemp("engine"), upstream)
    with asyncio.Runner() as runner:
        try:
            runner.run(process.start(START_SECONDS))
            yield _subject(engine), process
        finally:
            runner.run(process.stop())


@pytest.fixture
async def client(served: tuple[Subject, ReplicaProcess]) -> AsyncIterator[Client]:
    process = served[1]
    async with connect(process.port, process.admin_port) as connected:
        yield connected


@pytest.mark.parametrize("title", BEHAVIOURS)
async def test_every_engine(
    title: str, served: tuple[Subject, ReplicaProcess], client: Client
) -> None:
    word = await BEHAVIOURS[title](served[0], client)
    ConformanceTable(checkout().root / "reports").note(served[0].name, title, word)
