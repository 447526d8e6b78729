"""What a machine cannot do is told before vLLM tries, and why vLLM failed when it has."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from parley_inference.engine import cpu_dtype
from parley_inference.engine.adapters import Adapter
from parley_inference.engine.memory import available_bytes
from parley_inference.engine.start_notes import NoteHandler, StartNotes, sentence_of
from parley_inference.engine.vllm_start import (
    VllmOptions,
    cpu_mistake,
    engine_arguments,
    gpu_mistake,
    memory_mistake,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("ranks", "threads", "nodes", "said"),
    [
        (1, "", 1, ""),
        (2, "", 2, ""),
        (2, "0|1", 1, ""),
        (3, "nobind", 1, ""),
        (2, "", 1, "name the cores of each process in CPU_THREADS"),
        (2, "0-3", 1, "names cores for 1 processes"),
        (1, "0|1", 1, "names cores for 2 processes"),
    ],
)
def test_processes_need_cores_of_their_own(ranks: int, threads: str, nodes: int, said: str) -> None:
    mistake = cpu_mistake(ranks, threads, nodes)
    assert said in mistake
    assert bool(said) == bool(mistake)


def test_processes_need_a_gpu_each() -> None:
    assert gpu_mistake(4, 4) == ""
    assert "is 8, and 4 GPUs are visible" in gpu_mistake(8, 4)


def test_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1024))
    options = VllmOptions(str(tmp_path), "m", kv_cache_gib=2)
    assert memory_mistake(options, None) == ""
    assert memory_mistake(options, 2 * GIB + 1024) == ""
    assert "need 2.0 GiB, and 1.0 GiB are available" in memory_mistake(options, GIB)
    assert memory_mistake(VllmOptions("org/name", "m"), GIB) == ""


def test_a_container_leaves_less_than_its_machine(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_bytes(tmp_path) == 8000 * 1024
    groups = tmp_path / "sys/fs/cgroup"
    groups.mkdir(parents=True)
    (groups / "memory.max").write_text("max\n")
    (groups / "memory.current").write_text("5000\n")
    assert available_bytes(tmp_path) == 8000 * 1024
    (groups / "memory.max").write_text("6000\n")
    (groups / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    assert available_bytes(tmp_path) == 1500


def test_an_older_control_group_is_read_too(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/memory"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("6000\n")
    (group / "memory.usage_in_bytes").write_text("5000\n")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 300\n")
    assert available_bytes(tmp_path) == 1300


def test_adapters_and_sizes_reach_vllm() -> None:
    adapters = [Adapter(f"a{rank}", Path("/a"), rank, "1") for rank in (4, 12)]
    options = VllmOptions(
        "m", "m", tensor_parallel=2, dtype="float16", eager=True, max_model_len=100
    )
    arguments = engine_arguments(options, adapters, on_cpu=False)
    expected: dict[str, Any] = {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "dtype": "float16",
        "quantization": None,
        "max_model_len": 100,
        "enable_lora": True,
        "max_loras": 2,
        "max_cpu_loras": 2,
        "max_lora_rank": 16,
    }
    assert arguments.items() >= expected.items()
    assert "enable_lora" not in engine_arguments(options, [], on_cpu=False)
    # All of them, and the slot that stands for none.
    assert engine_arguments(options, adapters * 3, on_cpu=False)["max_loras"] == 4
    assert engine_arguments(options, adapters * 3, on_cpu=True)["max_loras"] == 7


def test_machines_that_share_a_model_have_a_part_of_it_each(tmp_path: Path) -> None:
    spread: dict[str, Any] = {
        "tensor_parallel": 8,
        "pipeline_parallel": 2,
        "nodes": 2,
        "leader_address": "first",
    }
    options = VllmOptions("m", "m", node_rank=1, **spread)
    assert options.local_ranks == 8
    expected: dict[str, Any] = {
        "nnodes": 2,
        "node_rank": 1,
        "master_addr": "first",
        "master_port": 29501,
        "distributed_executor_backend": "mp",
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
    }
    assert engine_arguments(options, [], on_cpu=False).items() >= expected.items()
    assert "nnodes" not in engine_arguments(VllmOptions("m", "m"), [], on_cpu=False)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * GIB)
    assert memory_mistake(VllmOptions(str(tmp_path), "m"), 2 * GIB)
    assert not memory_mistake(VllmOptions(str(tmp_path), "m", **spread), 2 * GIB)


def test_bfloat16_is_computed_in_float32_on_x86_where_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text('{"dtype": "bfloat16"}')
    weights.write_bytes(bytes(1000))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    def chosen(available: int | None = None) -> str:
        return cpu_dtype.cpu_dtype(tmp_path, beside=500, available=available)

    assert (chosen(), chosen(2500), chosen(2499)) == ("float32", "float32", "auto")
    options = VllmOptions(str(tmp_path), "m", eager=True, kv_cache_gib=0)
    assert engine_arguments(options, [], on_cpu=True)["dtype"] == "float32"
    assert engine_arguments(options, [], on_cpu=False)["dtype"] == "auto"
    for other in ({"nodes": 2}, {"quantization": "awq"}):
        arguments = engine_arguments(replace(options, **other), [], on_cpu=True)
        assert arguments["dtype"] == "auto"
    asked = replace(options, dtype="bfloat16")
    assert engine_arguments(asked, [], on_cpu=True)["dtype"] == "bfloat16"

    for said in ("{}", "no json", "[]", '{"dtype": "bfloat16", "quantization_config": {}}'):
        config.write_text(said)
        assert chosen() == "auto", said
    config.write_text('{"torch_dtype": "bfloat16"}')
    assert chosen() == "float32"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert chosen() == "auto"
    config.unlink()
    assert chosen() == "auto"


@pytest.fixture
def notes(tmp_path: Path) -> StartNotes:
    folder = tmp_path / "notes"
    folder.mkdir()
    return StartNotes(folder)


def log(notes: StartNotes, message: str, error: BaseException | None = None) -> None:
    level = logging.ERROR if error else logging.INFO
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("vllm", level, "", 0, message, None, info)
    NoteHandler(str(notes.folder)).handle(record)


def test_the_first_failure_is_the_cause(notes: StartNotes) -> None:
    assert (notes.cause, notes.last) == ("", "")
    log(notes, "loading\nweights")
    log(notes, "the worker failed", ValueError("no such weight:\n  x"))
    log(notes, "the engine failed", RuntimeError("a worker failed"))
    assert notes.cause == "no such weight: x"
    assert notes.last == "loading weights"


def test_no_notes_are_taken_when_the_start_is_over(notes: StartNotes) -> None:
    notes.close()
    log(notes, "later")
    log(notes, "later", ValueError("x"))
    assert (notes.cause, notes.last) == ("", "")
    assert not notes.folder.exists()


def test_a_failure_is_told_in_a_line() -> None:
    assert sentence_of(ValueError("a\n b")) == "a b"
    assert sentence_of(KeyError()) == "KeyError"
    with pytest.raises(ValidationError) as failed:
        TypeAdapter(int).validate_python("secret")
    said = sentence_of(failed.value)
    assert "valid integer" in said
    assert "secret" not in said
