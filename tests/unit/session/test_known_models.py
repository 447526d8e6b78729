"""What is remembered of the models that were served once."""

from dataclasses import replace

from parley_session.fleet.known import MAX_KNOWN, KnownModels
from support.session_fakes import model


def test_a_model_is_known_by_each_kind_of_engine_that_listed_it() -> None:
    known = KnownModels()
    assert known.of("sim") == []
    own, hosted = model(), replace(model(), external=True)
    known.note([hosted])
    known.note([own])
    newer = replace(own, revision="2")
    known.note([newer])
    assert known.of("sim") == [newer, hosted]


def test_more_than_the_bound_are_forgotten_the_longest_unlisted_first() -> None:
    known = KnownModels()
    first, second = model(id="first"), model(id="second")
    known.note([first, second])
    known.note([first])
    known.note(model(id=f"{n}") for n in range(MAX_KNOWN - 1))
    assert known.of("first") == [first]
    assert known.of("second") == []
