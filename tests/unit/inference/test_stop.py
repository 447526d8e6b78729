"""Stop strings are found wherever they fall."""

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_inference.answer.stop import StopMatcher

TEXT = st.text(alphabet="ab\n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=4)


def first_match(text: str, stops: list[str]) -> int | None:
    """Where the match that ends first begins, the longest of them; by definition, slowly."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return min(found)
    return None


def can_begin(text: str, stops: list[str]) -> bool:
    return any(text.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))


@settings(deadline=None)
@given(TEXT, STOPS, st.lists(st.integers(1, 5), max_size=30))
def test_the_first_match_is_found_however_the_text_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stops)
    position, read, found = 0, "", None
    for size in [*cuts, len(text) + 1]:
        piece = text[position : position + size]
        position += size
        read += piece
        found = matcher.feed(piece)
        if found is not None:
            break
        assert matcher.clean is not can_begin(read, stops)
    assert found == first_match(text, stops)


def test_the_longest_of_two_matches_that_end_together_counts() -> None:
    assert StopMatcher(["c", "abc"]).feed("xabc") == 1


def test_only_what_can_begin_a_stop_string_is_unclean() -> None:
    matcher = StopMatcher(["\nUser:"])
    clean = []
    for piece in ("no line ends here", "\nUse", "ful"):
        assert matcher.feed(piece) is None
        clean.append(matcher.clean)
    assert clean == [True, False, True]
