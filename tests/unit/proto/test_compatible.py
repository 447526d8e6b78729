"""Services of the released version and of this one understand each other."""

import proto_surface


def missing(released: list[str], today: list[str]) -> set[str]:
    return set(released) - set(today)


def test_nothing_that_was_released_is_gone_or_changed() -> None:
    released = proto_surface.RELEASED.read_text("utf-8").splitlines()
    assert len(released) > 100
    assert missing(released, proto_surface.surface()) == set()


def test_a_change_would_be_found() -> None:
    today = proto_surface.surface()
    changes = {
        "field parley.session.v1.Model.model_id = 1 string": "= 1 string | = 9 string",
        "field parley.session.v1.Model.adapters = 5 repeated string": "repeated string | string",
        "rpc parley.session.v1.SessionService.Complete parley.session.v1.CompleteRequest "
        "-> stream parley.session.v1.CompleteResponse": "-> stream | ->",
    }
    for line, change in changes.items():
        before, after = change.split(" | ")
        assert line in today
        changed = [line.replace(before, after) if each == line else each for each in today]
        assert missing(today, changed) == {line}
