"""What is left of vLLM when its processes are killed: nothing. Starts the engine twice."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from parley_inference.bootstrap import ENGINE_DIED
from parley_kit.rpc.status import from_rpc_error
from support.inference import connect
from support.vllm import START_SECONDS, ask, assert_gone, processes_below, vllm_process

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_killed_processes_take_the_others_with_them(tmp_path: Path) -> None:
    """First the engine's below a running answer, then, in a second replica, the replica's own."""
    process = vllm_process(tmp_path)
    try:
        await process.start(START_SECONDS)
        below = processes_below(process.pid)
        engine = next(child for child in below if "EngineCore" in child.name())
        async with connect(process.port) as client:
            answering = asyncio.ensure_future(client.generate(ask("A story.", max_tokens=1500)))
            await client.load_until(lambda load: load.running == 1)
            engine.kill()
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await answering
        assert from_rpc_error(failure.value).code == "engine_lost"
        assert await process.wait(30) == ENGINE_DIED
        await asyncio.to_thread(assert_gone, below)
        await process.start(START_SECONDS)
        below = processes_below(process.pid)
        process.signal(signal.SIGKILL)
        await process.wait(5)
        await asyncio.to_thread(assert_gone, below)
    finally:
        await process.stop()
