"""What callers see when the engine fails, and that the answer goes on elsewhere."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from parley_inference.engine.sim.engine import DEATH_STATUS
from parley_kit.rpc.status import from_rpc_error
from support.inference import Answer, Client, generate_request, replica_process, sim_replica
from support.poll import until

pytestmark = pytest.mark.integration


async def broken(client: Client, text: str) -> tuple[str, Answer]:
    answer = Answer()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.generate(generate_request(text), answer)
    return from_rpc_error(failure.value).code, answer


async def test_a_request_lost_before_its_first_token_can_be_tried_elsewhere() -> None:
    async with sim_replica(sim_faults=True) as (replica, client):
        code, answer = await broken(client, "[[sim:fail]]")
        assert code == "engine_unavailable"
        assert answer.started is None
        assert replica.serving


async def test_a_lost_answer_goes_on_elsewhere_as_if_nothing_had_happened() -> None:
    text = "[[sim:fail after=20]] go on"
    async with sim_replica(sim_faults=True) as (_, client):
        code, answer = await broken(client, text)
        assert code == "engine_lost"
        assert 0 < len(answer.token_ids) <= 20
    async with sim_replica() as (_, other):
        undisturbed = await other.generate(generate_request(text))
        rest = await other.generate(generate_request(text, generated_token_ids=answer.token_ids))
    assert answer.text + rest.text == undisturbed.text
    assert rest.finished == undisturbed.finished


async def test_directives_are_plain_text_unless_they_are_switched_on() -> None:
    async with sim_replica() as (_, client):
        answer = await client.generate(generate_request("[[sim:fail]]"))
    assert answer.finished is not None


async def test_a_dead_engine_ends_all_answers_and_takes_no_new_ones() -> None:
    async with sim_replica(sim_faults=True, sim_itl=0.005, sim_answer_tokens=0) as (
        replica,
        client,
    ):
        bystander = asyncio.create_task(broken(client, "innocent"))

        await client.load_until(lambda load: load.running == 1)
        code, _ = await broken(client, "[[sim:kill after=3]]")
        assert code == "engine_lost"
        assert (await bystander)[0] == "engine_lost"
        await until(lambda: not replica.serving)
        assert (await broken(client, "anyone?"))[0] == "engine_unavailable"
        assert (await client.load()).draining


async def test_a_hanging_request_ends_at_its_deadline_and_others_go_on() -> None:
    async with sim_replica(sim_faults=True) as (_, client):
        answer = Answer()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(generate_request("[[sim:hang after=5]]"), answer, timeout=0.5)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(answer.token_ids) <= 5
        assert (await client.generate(generate_request("next"))).finished is not None
        await client.idle()


@pytest.mark.parametrize("leap", [3600.0, -3600.0], ids=["forward", "back"])
async def test_a_wall_clock_that_is_set_ends_no_answer_and_puts_no_deadline_off(
    leap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sim_faults": True, "sim_itl": 0.01, "sim_answer_tokens": 0}
    async with sim_replica(**settings) as (_, client):
        answer, hanging = Answer(), Answer()
        going_on = asyncio.create_task(client.generate(generate_request("go on"), answer))
        ending = asyncio.create_task(
            client.generate(generate_request("[[sim:hang after=2]]"), hanging, timeout=1.0)
        )
        await until(lambda: answer.chunks and hanging.chunks)
        really = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: really() + leap)
            assert (await going_on).finished is not None
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await ending
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await client.idle()


async def test_a_dying_process_breaks_its_answers_off(tmp_path: Path) -> None:
    settings = {
        "PARLEY_INFERENCE_SIM_FAULTS": "true",
        "PARLEY_INFERENCE_SIM_TTFT": "0",
        "PARLEY_INFERENCE_SIM_ITL": "0.01",
    }
    async with replica_process(settings, tmp_path) as (process, client):
        answer = Answer()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.generate(generate_request("[[sim:die after=10]]"), answer)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await process.wait(5) == DEATH_STATUS
    assert 0 < len(answer.token_ids) <= 10


async def test_a_process_whose_engine_has_died_ends_with_a_status_of_its_own(
    tmp_path: Path,
) -> None:
    settings = {"PARLEY_INFERENCE_SIM_FAULTS": "true"}
    async with replica_process(settings, tmp_path) as (process, client):
        assert (await broken(client, "[[sim:kill after=1]]"))[0] == "engine_lost"
        assert await process.wait(10) == 4
