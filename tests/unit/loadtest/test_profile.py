"""Reading what the sampler wrote."""

from parley_loadtest.profile.stacks import Frame, parse, summed

LINES = [
    "<module> (parley_session/__main__.py:40);make (parley_session/runs/making.py:99);"
    "insert_one (pymongo/collection.py:1) 3",
    "<module> (parley_session/__main__.py:40);make (parley_session/runs/making.py:101);"
    "make (parley_session/runs/making.py:99) 2",
    "run (asyncio/base_events.py:607);serve.<locals>.go (x (y).py:1) 1",
    "",
]


def test_a_stack_is_read_outermost_first() -> None:
    frames, count = parse(LINES[0])
    assert count == 3
    assert frames[0] == Frame("<module>", "parley_session/__main__.py")
    assert [frame.library for frame in frames] == [
        "parley_session/__main__",
        "parley_session/runs",
        "pymongo",
    ]


def test_samples_are_summed_by_what_was_at_work_and_by_who_called_it() -> None:
    summary = summed(line for line in LINES if line)
    assert summary.samples == 6
    assert summary.by_library["pymongo"] == 3
    assert summary.by_library["parley_session/runs"] == 2
    # Once a stack, however deep it recurs; only functions of ours.
    assert summary.by_function == {
        "parley_session/__main__.py:<module>": 5,
        "parley_session/runs/making.py:make": 5,
    }
