"""Which engine a request goes to, and which ones are left alone."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley_session.fleet.choosing import (
    FLOOR,
    Candidate,
    Choice,
    Chooser,
    Strategy,
    Why,
    ramp,
)
from parley_session.fleet.outliers import OutlierLimits, Outliers

# A machine under load is no defect.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
addresses = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


def idle(count: int) -> list[Candidate]:
    return [Candidate(f"e{n}", 0, 8) for n in range(count)]


def with_load(candidates: list[Candidate], loads: dict[str, int], rest: int = 0) -> list[Candidate]:
    return [Candidate(c.address, loads.get(c.address, rest), c.capacity) for c in candidates]


def choice_of(chooser: Chooser, key: str, candidates: Sequence[Candidate]) -> Choice:
    """The engine that is chosen, where there are candidates."""
    choice = chooser.choose(key, candidates)
    assert choice is not None
    return choice


# affinity -------------------------------------------------------------------------


@PATIENT
@given(addresses=addresses, strategy=st.sampled_from(list(Strategy)), data=st.data())
def test_some_engine_is_chosen_whatever_the_loads(
    addresses: list[str], strategy: Strategy, data: st.DataObject
) -> None:
    load, capacity = st.integers(0, 50), st.integers(0, 8)
    candidates = [Candidate(a, data.draw(load), data.draw(capacity)) for a in addresses]
    choice = Chooser(strategy).choose("chat", candidates)
    assert choice is not None
    assert choice.address in addresses


@PATIENT
@given(addresses=addresses, data=st.data())
def test_none_gets_more_than_its_share_beyond_the_floor(
    addresses: list[str], data: st.DataObject
) -> None:
    load, capacity = st.integers(0, 50), st.integers(1, 40)
    candidates = [Candidate(a, data.draw(load), data.draw(capacity)) for a in addresses]
    chooser = Chooser()
    chooser.drawn("chat", addresses[0], "")
    choice = choice_of(chooser, "chat", candidates)
    chosen = next(c for c in candidates if c.address == choice.address)
    total = sum(c.load for c in candidates) + 1
    share = chosen.capacity / sum(c.capacity for c in candidates)
    assert chosen.load <= max(1.25 * total * share + 1, FLOOR * chosen.capacity)
    if any(c.load < c.capacity for c in candidates):
        assert chosen.load < chosen.capacity


def test_a_chat_keeps_its_engine_while_others_come_and_go() -> None:
    engines = idle(5)
    keys = [f"chat{n}" for n in range(400)]
    before = {key: choice_of(Chooser(), key, engines) for key in keys}
    fewer = {key: choice_of(Chooser(), key, engines[:4]) for key in keys}
    moved = [key for key in keys if before[key] != fewer[key]]
    assert all(before[key].address == "e4" for key in moved)
    spread = Counter(choice.address for choice in before.values())
    assert min(spread.values()) > 40


def test_a_busy_engine_overflows_to_one_other_and_always_the_same() -> None:
    chooser, engines = Chooser(), idle(4)
    first = choice_of(chooser, "chat", engines)
    assert first.why is Why.PREFERRED
    busy = with_load(engines, {first.address: 40}, rest=1)
    second = choice_of(chooser, "chat", busy)
    assert second.address != first.address
    assert second.why is Why.OVERFLOW
    assert {choice_of(chooser, "chat", busy).address for _ in range(20)} == {second.address}


def test_a_nearly_empty_batch_is_no_reason_to_leave_a_warm_cache() -> None:
    chooser, engines = Chooser(), idle(5)
    first = choice_of(chooser, "chat", engines).address
    assert choice_of(chooser, "chat", with_load(engines, {first: 1})).address == first


def test_a_chat_goes_to_where_its_last_answer_was_drawn() -> None:
    chooser, engines = Chooser(), idle(5)
    preferred = choice_of(chooser, "chat", engines).address
    other = next(c.address for c in engines if c.address != preferred)
    chooser.drawn("chat", other, "")
    assert choice_of(chooser, "chat", engines) == Choice(other, Why.WARM)
    # Its process was started again: the cache is empty.
    again = [Candidate(c.address, 0, 8, incarnation="new") for c in engines]
    assert choice_of(chooser, "chat", again).address == preferred


def test_what_is_remembered_is_bounded() -> None:
    chooser, engines = Chooser(memory=2), idle(3)
    warm = {}
    for key in ("a", "b", "c"):
        preferred = choice_of(chooser, key, engines).address
        warm[key] = next(c.address for c in engines if c.address != preferred)
        chooser.drawn(key, warm[key], "")
    kept = [key for key in warm if choice_of(chooser, key, engines).address == warm[key]]
    assert kept == ["b", "c"]


def test_without_engines_there_is_no_choice() -> None:
    assert all(Chooser(strategy).choose("chat", []) is None for strategy in Strategy)


# the other strategies -------------------------------------------------------------


def test_round_robin_takes_each_in_turn_in_proportion_to_its_batch() -> None:
    chooser = Chooser(Strategy.ROUND_ROBIN)
    engines = [Candidate("a", 0, 8), Candidate("b", 5, 16), Candidate("c", 0, 8)]
    taken = Counter(choice_of(chooser, "chat", engines).address for _ in range(400))
    assert taken == {"a": 100, "b": 200, "c": 100}


def test_least_loaded_takes_the_emptier_batch_of_two_and_breaks_ties_by_chance() -> None:
    chooser = Chooser(Strategy.LEAST_LOADED, rng=random.Random(1))
    engines = [Candidate("a", 4, 8), Candidate("b", 6, 16), Candidate("c", 7, 8)]
    taken = Counter(choice_of(chooser, "chat", engines).address for _ in range(300))
    assert taken["b"] > taken["a"] > taken["c"] == 0
    assert choice_of(chooser, "chat", engines[1:]).address == "b"
    taken = Counter(choice_of(chooser, "chat", idle(3)).address for _ in range(300))
    assert min(taken.values()) > 60


def test_least_loaded_queues_nowhere_while_a_batch_has_room() -> None:
    chooser = Chooser(Strategy.LEAST_LOADED)
    engines = with_load(idle(20), {"e7": 7}, rest=8)
    assert {choice_of(chooser, "chat", engines).address for _ in range(50)} == {"e7"}


def test_an_engine_that_was_empty_a_moment_ago_is_not_run_down() -> None:
    chooser = Chooser(Strategy.LEAST_LOADED, rng=random.Random(1))
    engines = with_load(idle(50), {"e7": 0}, rest=4)
    taken = Counter(choice_of(chooser, "chat", engines).address for _ in range(100))
    assert 0 < taken["e7"] <= 10


# slow start -----------------------------------------------------------------------


@pytest.mark.parametrize("strategy", Strategy)
def test_a_new_engine_gets_less_at_first(strategy: Strategy) -> None:
    chooser = Chooser(strategy, rng=random.Random(1))
    loads: Counter[str] = Counter()
    for number in range(120):
        engines = [
            Candidate(f"e{n}", loads[f"e{n}"], 64, ramp(3, 30) if n == 0 else 1.0) for n in range(3)
        ]
        loads[choice_of(chooser, f"chat{number}", engines).address] += 1
    assert 0 < loads["e0"] < 30
    assert ramp(0, 30) == 0.1
    assert ramp(15, 30) == 0.5
    assert ramp(31, 30) == ramp(0, 0) == 1.0


def test_where_all_are_new_chats_stay_where_they_are_warm() -> None:
    chooser = Chooser()
    engines = [Candidate(f"e{n}", 1, 8, ramp(1, 30)) for n in range(3)]
    first = choice_of(chooser, "chat", engines)
    assert first.why is Why.PREFERRED
    assert choice_of(chooser, "chat", engines) == first


# outliers -------------------------------------------------------------------------

ENGINES = ["a", "b", "c", "d"]
LIMITS = OutlierLimits(failures=3, seconds=5, longest_seconds=15, probe_seconds=10)


def fail(outliers: Outliers, address: str, now: float, times: int = 3) -> list[bool]:
    return [outliers.failed(address, now) for _ in range(times)]


def test_failures_running_eject_and_a_success_between_them_does_not() -> None:
    outliers = Outliers(LIMITS)
    assert fail(outliers, "a", 0, 2) == [False, False]
    outliers.succeeded("a")
    assert fail(outliers, "a", 0) == [False, False, True]
    assert outliers.able(ENGINES, 1) == ["b", "c", "d"]


def test_one_request_probes_and_decides() -> None:
    outliers = Outliers(LIMITS)
    fail(outliers, "a", 0)
    assert "a" in outliers.able(ENGINES, 5)
    outliers.trying("a", 5)
    # One at a time; one that was lost does not stand in the way for ever.
    assert "a" not in outliers.able(ENGINES, 6)
    assert "a" in outliers.able(ENGINES, 15)
    assert outliers.failed("a", 6)
    # Twice as long now.
    assert "a" not in outliers.able(ENGINES, 15)
    assert "a" in outliers.able(ENGINES, 16)
    outliers.trying("a", 16)
    assert outliers.succeeded("a")
    assert outliers.able(ENGINES, 16) == ENGINES
    assert not outliers.ejected("a")


def test_a_probe_that_was_given_up_is_none() -> None:
    outliers = Outliers(OutlierLimits(failures=1, seconds=5.0, panic_share=0.3))
    assert outliers.failed("e0", 0.0)
    assert "e0" in outliers.able(["e0", "e1"], 6.0)
    outliers.trying("e0", 6.0)
    assert "e0" not in outliers.able(["e0", "e1"], 6.1)
    outliers.untried("e0")
    assert "e0" in outliers.able(["e0", "e1"], 6.1)
    # A request from before tells nothing new: that was no probe's failure.
    assert not outliers.failed("e0", 6.2)
    outliers.untried("unknown")


def test_an_ejection_has_a_longest_time() -> None:
    outliers, now = Outliers(LIMITS), 0.0
    fail(outliers, "a", now)
    for _ in range(40):
        now += LIMITS.longest_seconds
        assert "a" in outliers.able(ENGINES, now)
        outliers.trying("a", now)
        assert outliers.failed("a", now)


def test_requests_from_before_the_ejection_do_not_lengthen_it() -> None:
    outliers = Outliers(LIMITS)
    fail(outliers, "a", 0)
    assert fail(outliers, "a", 4) == [False] * 3
    assert "a" in outliers.able(ENGINES, 5)


def test_when_every_engine_fails_none_is_left_alone() -> None:
    outliers = Outliers(LIMITS)
    for address in ENGINES[:2]:
        fail(outliers, address, 0)
    assert outliers.able(ENGINES, 1) == ["c", "d"]
    for address in ENGINES[2:]:
        fail(outliers, address, 0)
    assert outliers.able(ENGINES, 1) == ENGINES
    assert outliers.able(["a"], 1) == ["a"]
    # And one that serves is enough to come to itself again.
    outliers.trying("b", 1)
    assert outliers.succeeded("b")


def test_a_clock_that_leaps_ahead_ends_ejections_and_nothing_else() -> None:
    """A machine that slept: its monotonic clock may have gone on."""
    outliers = Outliers(LIMITS)
    fail(outliers, "a", 100)
    leapt = 100 + 86_400
    assert outliers.able(ENGINES, leapt) == ENGINES
    outliers.trying("a", leapt)
    assert outliers.failed("a", leapt)
    assert outliers.able(ENGINES, leapt + 1) == ["b", "c", "d"]


def test_engines_that_left_are_forgotten() -> None:
    outliers = Outliers(LIMITS)
    fail(outliers, "a", 0)
    outliers.keep(frozenset("bcd"))
    assert outliers.able(ENGINES, 1) == ENGINES
