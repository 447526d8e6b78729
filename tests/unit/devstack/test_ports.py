"""Which ports are chosen."""

from __future__ import annotations

import socket

import pytest

from parley_devstack import ports


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_CHOSEN", set())
    monkeypatch.delenv(ports.PART, raising=False)


def test_those_of_a_part_alone_and_none_twice_while_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ports.PART, "30900-30919")
    free = [port for port in range(30_900, 30_920) if ports.is_free(port)]
    chosen = [port for _ in range(len(free) // 2) for port in ports.free_ports(2)]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(free)
    # All were chosen once: any of them will do again.
    assert ports.free_port() in free


def test_one_that_is_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind((ports.LOOPBACK, 0))
        held.listen()
        port = held.getsockname()[1]
        monkeypatch.setenv(ports.PART, f"{port}-{port}")
        with pytest.raises(OSError, match="no 1 free ports"):
            ports.free_port()


def test_parts_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[set[int]] = []
    for number in range(3):
        monkeypatch.setenv(ports.PART, ports.part_of(number, 3))
        chosen.append(set(ports.free_ports(200)))
        assert chosen[-1] <= set(ports.CHOICE)
    assert len(set.union(*chosen)) == 600


@pytest.mark.parametrize("text", ["all", "15000", "15000-", "16000-15000", "0-10", "1-70000"])
def test_a_part_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(ports.PART, text)
    with pytest.raises(ValueError, match="must be like 15000-22999"):
        ports.free_port()
