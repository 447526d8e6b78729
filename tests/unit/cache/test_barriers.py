"""Barriers: which ones cover an entry, and what they refuse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parley_cache.barriers import Barrier, Stamp, barrier_of, covering, refuses
from parley_cache.keys import source_names
from parley_cache.model import Selector, Sources

TEXT = st.sampled_from(["", "a", "b"])
SET = st.sampled_from(["a", "b"])


@given(SET, SET, SET, SET, TEXT, TEXT, TEXT, TEXT)
def test_a_barrier_covers_exactly_what_its_selector_matches(
    chat: str, message: str, user: str, model: str, c: str, m: str, u: str, o: str
) -> None:
    if not (c or m or u or o):
        return
    name, absolute = barrier_of(Selector(chat_id=c, message_id=m, user=u, model=o))
    matches = c in {"", chat} and m in {"", message} and u in {"", user} and o in {"", model}
    names = covering(source_names(Sources(chat, message, user, model)))
    assert (name in names) == matches
    assert absolute == bool(c or m)


@given(st.text(max_size=30))
def test_a_stamp_that_cannot_be_read_is_none(text: str) -> None:
    stamp = Stamp.decode(text)
    assert stamp is None or Stamp.decode(stamp.encode()) == stamp


def test_a_stamp_survives_the_wire() -> None:
    for stamp in (Stamp(None, 0), Stamp(None, 3), Stamp("0123abcd", 17)):
        assert Stamp.decode(stamp.encode()) == stamp
    assert Stamp.decode("") is None


def test_an_expired_barrier_refuses_nothing() -> None:
    barriers = [Barrier(absolute=True, sequence=1, expires_at=10.0)]
    assert refuses(barriers, epoch="e", stamp=Stamp("e", 0), now=9.9)
    assert not refuses(barriers, epoch="e", stamp=Stamp("e", 0), now=10.0)


def test_a_stamp_of_another_epoch_is_always_too_old() -> None:
    assert refuses([], epoch="new", stamp=Stamp("old", 99), now=0.0)
    assert refuses([], epoch=None, stamp=Stamp("old", 99), now=0.0)
    assert not refuses([], epoch="new", stamp=Stamp(None, 0), now=0.0)
