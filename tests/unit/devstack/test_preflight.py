from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from parley_devstack.preflight import Machine, check_machine, check_ports

GOOD = Machine(
    system="Linux",
    arch="x86_64",
    python=(3, 11),
    glibc=(2, 36),
    disk_free=100.0,
    memory_available=16.0,
    has_gpu=False,
    has_venv=True,
    has_avx2=True,
)


@pytest.mark.parametrize("engine", ["vllm", "sim"])
@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_a_good_machine_lacks_nothing(engine: str, python: tuple[int, int]) -> None:
    assert check_machine(replace(GOOD, python=python), engine) == []


@pytest.mark.parametrize(
    ("machine", "engine", "advice"),
    [
        (replace(GOOD, python=(3, 10)), "sim", "install 3.11 or newer"),
        (replace(GOOD, python=(3, 15)), "vllm", "PYTHON=python3.13"),
        (replace(GOOD, glibc=(2, 31)), "sim", "2.35 or newer"),
        (replace(GOOD, glibc=()), "sim", "another C library"),
        (replace(GOOD, has_venv=False), "sim", "apt install python3.11-venv"),
        (replace(GOOD, disk_free=5.0), "vllm", "use ENGINE=sim"),
        (replace(GOOD, disk_free=1.0), "sim", "make room"),
        (replace(GOOD, memory_available=2.0), "vllm", "use ENGINE=sim"),
        (replace(GOOD, memory_available=0.5), "sim", "close something"),
        (replace(GOOD, has_avx2=False), "vllm", "AVX2"),
        (replace(GOOD, system="Darwin", arch="arm64", glibc=()), "vllm", "use ENGINE=sim"),
        (replace(GOOD, arch="aarch64"), "vllm", "use ENGINE=sim"),
        (replace(GOOD, system="Windows", arch="amd64"), "sim", "WSL 2"),
    ],
)
def test_each_lack_is_one_sentence_with_advice(machine: Machine, engine: str, advice: str) -> None:
    problems = check_machine(machine, engine)
    assert len([problem for problem in problems if advice in problem]) == 1
    assert all(problem.endswith(".") and "\n" not in problem for problem in problems)


def test_sim_is_allowed_on_macos_and_arm() -> None:
    assert check_machine(replace(GOOD, system="Darwin", arch="arm64", glibc=()), "sim") == []
    assert check_machine(replace(GOOD, arch="aarch64"), "sim") == []


def test_a_gpu_makes_up_for_a_processor_without_avx2() -> None:
    assert check_machine(replace(GOOD, has_avx2=False, has_gpu=True), "vllm") == []


def test_disk_is_not_asked_for_when_everything_is_installed() -> None:
    assert check_machine(replace(GOOD, disk_free=0.5), "vllm", installed=True) == []


def test_a_taken_port_is_told_with_its_holder_and_another_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (problem,) = check_ports([port, 0])
    assert f"Port {port} is in use by" in problem
    assert "(pid " in problem
    assert f"PORT={port + 10}" in problem
