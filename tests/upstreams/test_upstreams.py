"""The `openai` engine before other people's servers with the small model, by the same suite.

`make test-upstreams`; the table of all engines is reports/engines.md.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import grpc
import pytest

from parley_devstack.models import model_folder
from parley_devstack.paths import checkout
from support.conformance import BEHAVIOURS, ConformanceTable, Subject
from support.inference import Client, ReplicaProcess, connect
from support.upstreams import CONTEXT, Server, started

pytestmark = [pytest.mark.upstreams, pytest.mark.timeout(1800)]

SERVERS = ["vllm", "llama_cpp", "transformers"]
MODEL = "smol"

# What an engine says that does all it is asked for; of the other behaviours any word is right.
SAID = {
    "a whole answer, its tokens counted once": "yes",
    "ends at max_tokens": "yes",
    "ends before a stop string": "yes",
    "the same seed, the same answer": "yes",
    "top_k": "yes",
    "penalties": "yes",
    "a JSON schema is followed, or refused before acceptance": "followed",
    "tokens are counted": "exactly",
    "too long a prompt is refused": "yes",
    "another model is refused": "yes",
    "continuing a broken-off answer": "sampled",
    "a deadline frees the engine": "yes",
}
# What is said before a server instead, and why; `fails`: the behaviour is not shown at all. One
# that is mended fails the test, as one that breaks does.
EXCEPTIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("llama_cpp", "continuing a broken-off answer"): (
        "none",
        "it goes on with no unfinished message",
    ),
    ("transformers", "penalties"): ("refused", "it has no presence penalty"),
    ("transformers", "a JSON schema is followed, or refused before acceptance"): (
        "refused",
        "it follows no schema",
    ),
    ("transformers", "continuing a broken-off answer"): (
        "none",
        "it goes on with no unfinished message",
    ),
}


@dataclass(frozen=True)
class Before:
    """The engine as a replica, before a server."""

    name: str
    subject: Subject
    replica: ReplicaProcess


def _replica(described: Server, url: str, log: pytest.TempPathFactory) -> ReplicaProcess:
    settings = {
        "ENGINE": "openai",
        "MODEL": described.model,
        "MODEL_ID": MODEL,
        "MAX_MODEL_LEN": str(CONTEXT),
        "MAX_NUM_SEQS": str(described.slots),
        "UPSTREAM_URL": url,
        "UPSTREAM_DIALECT": described.dialect,
        "UPSTREAM_TOKENIZER": str(model_folder(checkout())),
        "UPSTREAM_FLEET": "own",
    }
    named = {f"PARLEY_INFERENCE_{name}": value for name, value in settings.items()}
    return ReplicaProcess(named, log.mktemp("replica") / "log")


@pytest.fixture(scope="module", params=SERVERS)
def before(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Before]:
    with (
        started(request.param, tmp_path_factory.mktemp("server")) as (described, url),
        asyncio.Runner() as runner,
    ):
        replica = _replica(described, url, tmp_path_factory)
        subject = Subject(
            f"openai, {described.title}", MODEL, CONTEXT, slots=described.slots, seconds=600.0
        )
        try:
            runner.run(replica.start(60.0))
            yield Before(request.param, subject, replica)
        finally:
            runner.run(replica.stop())


@pytest.fixture
async def client(before: Before) -> AsyncIterator[Client]:
    async with connect(before.replica.port, before.replica.admin_port) as connected:
        yield connected


@pytest.mark.parametrize("title", BEHAVIOURS)
async def test_every_server(title: str, before: Before, client: Client) -> None:
    wanted, reason = EXCEPTIONS.get((before.name, title), (SAID.get(title), ""))
    try:
        word = await BEHAVIOURS[title](before.subject, client)
    except (AssertionError, grpc.aio.AioRpcError):
        if wanted != "fails":
            raise
        word = "fails"
    assert wanted is None or word == wanted
    table = ConformanceTable(checkout().root / "reports")
    table.note(before.subject.name, title, f"{word}: {reason}" if reason else word)


def test_every_exception_is_of_a_server_and_a_behaviour() -> None:
    assert {(name in SERVERS, title in BEHAVIOURS) for name, title in EXCEPTIONS} <= {(True, True)}
    assert SAID.keys() <= BEHAVIOURS.keys()
