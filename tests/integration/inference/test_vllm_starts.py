"""A start that cannot succeed ends the process with a sentence that says why."""

import asyncio
import json
from pathlib import Path

import pytest

from parley_kit.errors import StartupError
from support.inference import ReplicaProcess
from support.lora import make_adapter
from support.vllm import (
    START_SECONDS,
    assert_gone,
    changed_model,
    processes_below,
    vllm_process,
)

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(600)]


async def refusal(process: ReplicaProcess) -> str:
    """Start it and wait until it has given up; what it has written."""
    try:
        await process.launch()
        below = processes_below(process.pid)
        assert await process.wait(START_SECONDS) == StartupError.exit_code
        await asyncio.to_thread(assert_gone, below)
    finally:
        await process.stop()
    return process.output()


async def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    model = changed_model(tmp_path / "model")
    (weights,) = model.glob("*.safetensors")
    whole = weights.resolve()
    weights.unlink()
    with whole.open("rb") as source, weights.open("wb") as target:
        target.write(source.read(1_000_000))
    said = await refusal(vllm_process(tmp_path, model=model))
    assert f"{weights} is not whole: it has 1000000 bytes" in said


async def test_weights_of_another_model_are_refused_with_the_engines_own_reason(
    tmp_path: Path,
) -> None:
    model = changed_model(tmp_path / "model", num_hidden_layers=31)
    said = await refusal(vllm_process(tmp_path, model=model))
    assert f"vLLM cannot serve {model}: " in said
    # The process that failed is two below the one that tells it.
    assert "model.layers.30" in said


async def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    other = changed_model(tmp_path / "other", hidden_size=288)
    adapter = make_adapter(other, tmp_path / "adapter")
    said = await refusal(vllm_process(tmp_path, adapters=json.dumps({"odd": str(adapter)})))
    assert "the adapter odd cannot be served: it was made for another model" in said


async def test_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    said = await refusal(vllm_process(tmp_path, kv_cache_gib=4096))
    assert "there is too little memory: KV_CACHE_GIB and the weights need 4096." in said


async def test_more_processes_than_the_cpu_has_room_for_are_refused(tmp_path: Path) -> None:
    said = await refusal(vllm_process(tmp_path, tensor_parallel_size=64))
    assert "is 64, and this CPU has" in said
