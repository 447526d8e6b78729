"""LoRA adapters on vLLM, made on the spot: one start for all."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from parley.inference.v1 import inference_pb2 as pb

from support.inference import Client, ReplicaProcess, connect
from support.lora import BASE, make_adapter
from support.poll import until
from support.stack import VLLM_MODEL as MODEL
from support.vllm import START_SECONDS, ask, small_model, vllm_process

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(600)]

ODD, EVEN = "smol-odd", "smol-even"
QUESTION = "Name three colours of the rainbow, and say in a sentence what each reminds you of."


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaProcess]:
    """One vLLM with two adapters for the tests of this module."""
    folder = tmp_path_factory.mktemp("vllm")
    adapters = {
        name: str(make_adapter(small_model(), folder / name, seed))
        for seed, name in enumerate((ODD, EVEN))
    }
    process = vllm_process(folder, adapters=json.dumps(adapters), adapter_base_model=BASE)
    with asyncio.Runner() as runner:
        try:
            runner.run(_start(process))
            yield process
        finally:
            runner.run(process.stop())
    assert process.returncode == 0


async def _start(process: ReplicaProcess) -> None:
    """Start it, and see that it tells how it gets on."""
    await process.launch()
    url = f"http://127.0.0.1:{process.admin_port}"
    async with httpx.AsyncClient(base_url=url, timeout=30) as admin:

        async def says_so() -> bool:
            answer = await admin.get("/readyz")
            assert answer.status_code == 503
            return "not ready: loading the model for" in answer.text and "; vLLM: " in answer.text

        await until(says_so, START_SECONDS, "progress")
    await process.ready(START_SECONDS)


@pytest.fixture
async def client(replica: ReplicaProcess) -> AsyncIterator[Client]:
    async with connect(replica.port, replica.admin_port) as connected:
        yield connected


async def test_adapters_are_listed_as_models_with_revisions_of_their_own(client: Client) -> None:
    models = (await client.stub.ListModels(pb.ListModelsRequest(), timeout=5)).models
    assert [(m.model_id, m.base_model_id, list(m.adapters)) for m in models] == [
        (MODEL, "", [ODD, EVEN]),
        (ODD, MODEL, []),
        (EVEN, MODEL, []),
    ]
    base, odd, even = (model.revision for model in models)
    assert odd.startswith(f"{base}+")
    assert len({base, odd, even}) == 3
    assert list((await client.load()).models) == [MODEL, ODD, EVEN]
    assert await client.metric("parley_inference_loading_seconds") > 0


async def test_an_adapter_answers_otherwise_and_shares_no_prefix(client: Client) -> None:
    answers = [
        await client.generate(ask(QUESTION, model=name, max_tokens=16))
        for name in (MODEL, ODD, EVEN, MODEL, ODD, MODEL, ODD)
    ]
    texts = [answer.text for answer in answers]
    assert len(set(texts[:3])) == 3
    # The first of each fills the prefix cache: a prompt computed otherwise rounds otherwise.
    assert texts[3:5] == texts[5:]
    assert texts[3] != texts[4]
    cached = [answer.started.cached_prompt_tokens for answer in answers if answer.started]
    assert cached[:3] == [0, 0, 0]
    assert min(cached[3:]) > 0


async def test_an_answer_of_an_adapter_goes_on_with_it(client: Client) -> None:
    whole = await client.generate(ask(QUESTION, model=ODD, max_tokens=16))
    assert whole.started is not None
    known = {"max_tokens": 16, "generated_token_ids": whole.token_ids[:8]}
    revision = whole.started.model_revision
    rest = await client.generate(ask(QUESTION, model=ODD, model_revision=revision, **known))
    assert rest.finished is not None
    assert rest.finished.completion_tokens == 8 + len(rest.token_ids)
    without = await client.generate(ask(QUESTION, **known))
    assert without.token_ids != rest.token_ids


async def test_answers_of_model_and_adapters_are_drawn_side_by_side(client: Client) -> None:
    together = await asyncio.gather(
        *(client.generate(ask(QUESTION, model=name, max_tokens=16)) for name in (MODEL, ODD, EVEN))
    )
    assert len({answer.text for answer in together}) == 3
    await client.idle()
