"""The comparison with peers: what is read from answers, and what rounds come to."""

from collections.abc import AsyncIterator

import pytest

from parley_loadtest.bench.http import BadAnswer
from parley_loadtest.peers import litellm, vllm
from parley_loadtest.peers.__main__ import read_options
from parley_loadtest.peers.rounds import PeerLoad, PeerSample, PeerSamples, interval
from parley_loadtest.peers.ways import OpenAiWay, ParleyWay, Timed


class Scripted:
    """An HTTP connection that answers with these pieces."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    async def post(self, path: str, body: bytes, accept: str) -> AsyncIterator[bytes]:
        del path, body, accept
        for part in self.parts:
            yield part


def sample(rate: float, first: float = 0.1, **cpu: float) -> PeerSample:
    """A round of one answer."""
    return PeerSample(1.0, [Timed(int(rate), 2, first, 1.0)], cpu)


async def test_an_openai_stream_is_counted_by_its_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    way = OpenAiWay("http://127.0.0.1:1", "sim")
    scripted = Scripted(
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"choices":[{"delta":',
        b'{"content":"lo"}}]}\n\ndata: {"choices":[],"usage":{"completion_tokens":2}}\n\n',
        b"data: [DONE]\n\n",
    )
    monkeypatch.setattr(way, "_http", scripted)
    timed = await way.answer("Hi", 2, streamed=True)
    assert (timed.tokens, timed.pieces) == (2, 3)
    assert 0 < timed.first <= timed.whole


async def test_a_stream_that_ends_early_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in (OpenAiWay("http://127.0.0.1:1", "sim"), ParleyWay("http://127.0.0.1:1")):
        monkeypatch.setattr(
            way, "_http", Scripted(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n')
        )
        with pytest.raises(BadAnswer):
            await way.answer("Hi", 2, streamed=True)


async def test_parleys_stream_is_counted_by_its_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    way = ParleyWay("http://127.0.0.1:1")
    scripted = Scripted(
        b"event: accepted\ndata: {}\n\n",
        b'id: 3\nevent: delta\ndata: {"text":"Hel"}\n\n',
        b'event: delta\ndata: {"text":"lo"}\n\n'
        b'event: done\ndata: {"usage":{"completionTokens":2}}\n\n',
    )
    monkeypatch.setattr(way, "_http", scripted)
    timed = await way.answer("Hi", 2, streamed=True)
    assert (timed.tokens, timed.pieces) == (2, 2)
    assert 0 < timed.first <= timed.whole


def test_an_interval_holds_the_median_as_often_as_it_says() -> None:
    five = interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (five.median, five.low, five.high) == (3.0, 1.0, 5.0)
    assert five.coverage == pytest.approx(1 - 2 / 32)
    nine = interval([float(n) for n in range(9)])
    assert (nine.low, nine.high) == (1.0, 7.0)
    assert nine.coverage == pytest.approx(1 - 2 * 10 / 512)
    assert interval([2.0]).median == 2.0
    assert interval([]).coverage == 0.0


def test_ratios_are_taken_round_by_round() -> None:
    samples = PeerSamples(
        PeerLoad("load", 10, 1, 1.0),
        {"a": [sample(10), sample(40)], "b": [sample(10), sample(20)]},
    )
    assert samples.ratio("a", "b", lambda s: s.tokens_per_second).median == 1.5


def test_the_time_to_the_first_text_is_a_rank_not_a_mean() -> None:
    answers = [Timed(1, 1, first / 100, 1.0) for first in range(100, 0, -1)]
    one = PeerSample(1.0, answers, {})
    assert one.first(0.5) == 0.5
    assert one.first(0.99) == 0.99
    assert PeerSample(1.0, [], {}).first(0.5) == 0.0


def test_the_engines_own_time_is_not_counted_as_outside() -> None:
    cpu = {"gateway-1": 1.0, "inference-1": 5.0, "parley engine": 4.0, "benchmark": 9.0}
    other = {"vllm": 6.0, "vllm engine": 5.5}
    samples = PeerSamples(
        PeerLoad("1 streams", 10, 1, 1.0),
        {vllm.PARLEY: [sample(1000, **cpu)], vllm.VLLM: [sample(1000, **other)]},
    )
    assert vllm.outside(samples, vllm.PARLEY) == pytest.approx(2.0)
    assert vllm.outside(samples, vllm.VLLM) == pytest.approx(0.5)
    last = vllm.report([samples]).splitlines()
    assert any(line.split()[:3] == ["1", "streams", "1.000"] for line in last)


def test_the_ratios_to_litellm_come_last() -> None:
    by_way = {
        litellm.ENGINE: [sample(100)],
        litellm.LITELLM: [sample(10, first=0.2)],
        litellm.PARLEY: [sample(30)],
    }
    samples = [PeerSamples(PeerLoad("streamed", 10, 1, 1.0), by_way)]
    memory = {litellm.PARLEY: 300.0, litellm.LITELLM: 100.0}
    text = litellm.report([litellm.Measured("paced", "coalescing on", samples, memory)])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "paced, coalescing on streamed streamed tokens/s 3.000 (3.000-3.000)" in lines
    assert lines[-1].endswith("3.00")


def test_settings_are_chosen_and_rounds_are_checked() -> None:
    options = read_options(["litellm", "--only", "off"])
    assert [setting[1] for setting in litellm.chosen(options)] == ["coalescing off"] * 2
    assert litellm.seconds_of(options) > 0
    few, many = (read_options(["vllm", "--streams", *streams]) for streams in (["4"], ["1", "32"]))
    assert 300 < vllm.seconds_of(few) < vllm.seconds_of(many)
    with pytest.raises(SystemExit):
        read_options(["vllm", "--rounds", "0"])


def test_the_client_keeps_a_core_where_there_are_two() -> None:
    budget, client = litellm.split_cores(64)
    assert budget
    assert client
    assert not set(budget) & set(client) or len({*budget, *client}) == 1
