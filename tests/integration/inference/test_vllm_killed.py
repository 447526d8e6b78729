"""What is left of vLLM when its processes are killed: nothing. Ends the stack's engine twice."""

import asyncio
import os
import signal

import grpc
import pytest

from parley_devstack.stack import Stack
from parley_inference.bootstrap import ENGINE_DIED
from parley_kit.rpc.status import from_rpc_error
from support.inference import connect
from support.vllm import ask, assert_gone, ended, port_of, processes_below

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(900)]
NAME = "inference-1"


async def test_killed_processes_take_the_others_with_them(vllm_stack: Stack) -> None:
    """First the engine's below a running answer, then, in a second replica, the replica's own."""
    pid = vllm_stack.pid(NAME)
    assert pid is not None
    below = processes_below(pid)
    engine = next(child for child in below if "EngineCore" in child.name())
    async with connect(port_of(vllm_stack.plan(NAME).grpc)) as client:
        answering = asyncio.ensure_future(client.generate(ask("A story.", max_tokens=1500)))
        await client.load_until(lambda load: load.running == 1)
        engine.kill()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await answering
    assert from_rpc_error(failure.value).code == "engine_lost"
    await ended(pid, 30)
    await asyncio.to_thread(assert_gone, below)
    assert len(await vllm_stack.died()) == 1
    assert vllm_stack.exit_code(NAME) == ENGINE_DIED

    await vllm_stack.start_one(NAME)
    pid = vllm_stack.pid(NAME)
    assert pid is not None
    below = processes_below(pid)
    assert any("EngineCore" in child.name() for child in below)
    os.kill(pid, signal.SIGKILL)
    await ended(pid, 5)
    await asyncio.to_thread(assert_gone, below)
    assert len(await vllm_stack.died()) == 1
