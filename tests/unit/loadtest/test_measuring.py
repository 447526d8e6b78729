"""Timing, rows, thresholds, health and exit codes."""

from __future__ import annotations

import pytest
from locust.stats import RequestStats

from parley_loadtest.health import Health
from parley_loadtest.rows import GAP, ITL, TOKENS, TTFT, merged, record
from parley_loadtest.summary import OK, REQUESTS_FAILED, THRESHOLDS_MISSED, exit_code, summary
from parley_loadtest.thresholds import ThresholdError, judge, parse_thresholds
from parley_loadtest.timing import AnswerTiming


def timing(*pieces: float) -> AnswerTiming:
    answer = AnswerTiming(asked_at=10.0)
    for at in pieces:
        answer.piece(10.0 + at)
    return answer


def stats_of(*answers: tuple[str, AnswerTiming, int]) -> RequestStats:
    stats = RequestStats()
    for status, one, tokens in answers:
        stats.log_request("SSE", "POST /chat", 100, 10)
        record(stats, status, one, tokens)
    return stats


def test_an_answer_gives_ttft_itl_gaps_and_rate() -> None:
    one = timing(0.5, 0.6, 1.0)
    assert one.ttft == pytest.approx(0.5)
    assert one.gaps == pytest.approx([0.1, 0.4])
    assert one.itl(6) == pytest.approx(0.1)
    assert one.tokens_per_second(6) == pytest.approx(6.0)


def test_what_was_not_seen_is_not_measured() -> None:
    assert timing().ttft is None
    assert timing().tokens_per_second(5) is None
    assert timing(0.5).itl(5) is None, "one piece says nothing of the time between tokens"
    assert timing(0.5, 0.6).itl(1) is None


def test_rows_are_split_by_cache_status_and_stay_out_of_the_sum() -> None:
    stats = stats_of(("miss", timing(0.5, 1.0), 11), ("exact", timing(0.1), 11))
    assert stats.total.num_requests == 2
    assert merged(stats, TTFT, "miss").avg_response_time == pytest.approx(500)
    assert merged(stats, TTFT, "exact").avg_response_time == pytest.approx(100)
    assert merged(stats, TTFT).num_requests == 2
    assert merged(stats, ITL).avg_response_time == pytest.approx(50_000)
    assert merged(stats, GAP).num_requests == 1
    assert merged(stats, TOKENS, "exact").avg_response_time == pytest.approx(110)


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("ttft.p95<2s", True),
        ("ttft.p95<400ms", False),
        ("ttft.max@exact<=100ms", True),
        ("ttft.p50@semantic<9s", False),
        ("itl.avg<60ms", True),
        ("itl.avg<40ms", False),
        ("tokens.min>10", True),
        ("errors<1%", True),
        ("requests>=2", True),
        ("requests>2", False),
        ("", True),
        ("ttft.p95<2s, errors<=0%", True),
    ],
)
def test_a_threshold_is_judged_by_what_was_measured(text: str, reached: bool) -> None:
    stats = stats_of(("miss", timing(0.5, 1.0), 11), ("exact", timing(0.1), 11))
    thresholds = parse_thresholds(text)
    assert all(judgement.reached for judgement in judge(stats, thresholds)) == reached
    assert exit_code(stats, thresholds) == (OK if reached else THRESHOLDS_MISSED)
    assert ("MISSED" in summary(stats, thresholds, [])) != reached


@pytest.mark.parametrize(
    "text",
    [
        "ttft<2s",
        "ttft.p95<2",
        "ttft.p95=2s",
        "tokens.p50>5ms",
        "errors.p95<1",
        "errors@miss<1%",
        "ttft.p95@nowhere<1s",
        "speed>1",
        "rps>5%",
        "rps>",
    ],
)
def test_a_threshold_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ThresholdError, match=text.split("<", maxsplit=1)[0].split(">")[0]):
        parse_thresholds(text)


def test_failures_end_in_their_own_exit_code_unless_a_threshold_allows_them() -> None:
    stats = stats_of(*[("miss", timing(0.5), 3)] * 9)
    stats.log_request("SSE", "POST /chat", 5, 0)
    stats.log_error("SSE", "POST /chat", "503 overloaded: busy")
    assert exit_code(stats, []) == REQUESTS_FAILED
    assert exit_code(stats, parse_thresholds("errors<20%")) == OK
    assert exit_code(stats, parse_thresholds("errors<5%")) == THRESHOLDS_MISSED


def test_a_test_without_a_request_did_not_go_well() -> None:
    assert exit_code(RequestStats(), []) == REQUESTS_FAILED
    assert exit_code(RequestStats(), parse_thresholds("errors<=0%")) == THRESHOLDS_MISSED


def test_a_generator_that_keeps_up_gives_no_warning() -> None:
    health = Health()
    for _ in range(100):
        health.note_cpu(0.3)
        health.note_wake(0.001)
    assert health.warning() is None
    assert "kept up" in summary(RequestStats(), [], [health])


@pytest.mark.parametrize(("cpu", "lateness"), [(0.97, 0.0), (0.2, 0.4)])
def test_a_generator_that_is_the_limit_is_told(cpu: float, lateness: float) -> None:
    health = Health()
    for number in range(100):
        health.note_cpu(cpu if number % 5 == 0 else 0.1)
        health.note_wake(lateness if number % 5 == 0 else 0.0)
    assert "WARNING" in summary(RequestStats(), [], [Health(), health])
