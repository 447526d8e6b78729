"""A model at eight bits on vLLM, made on the spot."""

import asyncio
from pathlib import Path

import pytest

from support.inference import connect
from support.vllm import START_SECONDS, ask, int8_model, vllm_process

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(600)]


async def test_a_model_at_eight_bits_is_served_as_its_configuration_says(tmp_path: Path) -> None:
    model = await asyncio.to_thread(int8_model, tmp_path / "int8")
    process = vllm_process(tmp_path, model=model)
    try:
        await process.start(START_SECONDS)
        async with connect(process.port, process.admin_port) as client:
            question = ask("What is the capital of France?", max_tokens=16, temperature=0.0)
            assert "Paris" in (await client.generate(question)).text
    finally:
        await process.stop()
