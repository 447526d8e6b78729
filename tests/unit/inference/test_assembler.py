"""Chunks are whole UTF-8, end on token boundaries, and join to the answer."""

import codecs
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_inference.answer.assembler import Assembler, Chunk

Tokens = list[tuple[int, str | None]]


def tokenise(data: bytes, cuts: list[int]) -> Tokens:
    """Cut text into tokens at any bytes, as a byte-level vocabulary would."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    tokens: Tokens = []
    held, position = "", 0
    for size in itertools.chain(cuts, itertools.repeat(3)):
        if position >= len(data):
            return tokens
        held += decoder.decode(data[position : position + size])
        position += size
        if decoder.getstate()[0]:
            tokens.append((len(tokens), None))
        else:
            tokens.append((len(tokens), held))
            held = ""
    raise AssertionError


def feed(assembler: Assembler, tokens: Tokens, steps: list[int]) -> tuple[list[Chunk], bool]:
    """Push tokens in steps of the given sizes; take whatever is ready after each."""
    chunks, position = [], 0
    for size in itertools.chain(steps, itertools.repeat(1)):
        step = tokens[position : position + size]
        position += size
        if not step:
            assembler.flush()
        matched = assembler.push([i for i, _ in step], [text for _, text in step])
        if assembler.ready:
            chunks.append(assembler.take())
        if matched or not step:
            return chunks, matched
    raise AssertionError


def check_chunks(chunks: list[Chunk]) -> str:
    """Offsets follow one another; the text that all make together."""
    text = ""
    for chunk in chunks:
        assert chunk.offset == len(text.encode())
        text += chunk.text
    return text


TEXTS = st.text(alphabet="ab \n.éß語🙂", max_size=40)
CUTS = st.lists(st.integers(1, 4), max_size=60)


@settings(deadline=None)
@given(TEXTS, CUTS, CUTS)
def test_chunks_join_to_the_text_and_to_all_tokens(
    text: str, cuts: list[int], steps: list[int]
) -> None:
    tokens = tokenise(text.encode(), cuts)
    chunks, matched = feed(Assembler(), tokens, steps)
    assert not matched
    assert check_chunks(chunks) == text
    assert [i for chunk in chunks for i in chunk.token_ids] == [i for i, _ in tokens]


STOPS = st.lists(st.text(alphabet="ab\né語", min_size=1, max_size=4), min_size=1, max_size=3)


def expected(text: str, stops: list[str]) -> str:
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)]
    return text


def can_begin_a_stop(text: str, stops: list[str]) -> bool:
    return any(text.endswith(stop[:n]) for stop in stops for n in range(1, len(stop)))


@settings(deadline=None)
@given(TEXTS, STOPS, CUTS, CUTS)
def test_the_answer_ends_before_a_stop_string_and_nothing_of_it_leaves(
    text: str, stops: list[str], cuts: list[int], steps: list[int]
) -> None:
    tokens = tokenise(text.encode(), cuts)
    chunks, matched = feed(Assembler(stops), tokens, steps)
    assert check_chunks(chunks) == expected(text, stops)
    assert matched is (expected(text, stops) != text or any(text.endswith(s) for s in stops))
    sent = ""
    for chunk in chunks[:-1]:
        sent += chunk.text
        assert not can_begin_a_stop(sent, stops)


@settings(deadline=None)
@given(TEXTS, STOPS | st.just([]), CUTS, st.data())
def test_an_answer_continued_after_any_chunk_is_the_undisturbed_one(
    text: str, stops: list[str], cuts: list[int], data: st.DataObject
) -> None:
    tokens = tokenise(text.encode(), cuts)
    whole, _ = feed(Assembler(stops), tokens, [])
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    if kept == whole:
        # The last chunk may end anywhere: its tokens are those of a complete answer.
        return
    known = sum(len(chunk.token_ids) for chunk in kept)
    assembler = Assembler(stops)
    existing = tokens[:known]
    assert not assembler.replay([i for i, _ in existing], [t for _, t in existing])
    rest, _ = feed(assembler, tokens[known:], [])
    assert check_chunks([*kept, *rest]) == check_chunks(whole)
    assert [i for c in (*kept, *rest) for i in c.token_ids] == [
        i for c in whole for i in c.token_ids
    ]


@settings(deadline=None)
@given(TEXTS, STOPS | st.just([]), CUTS, st.data())
def test_an_answer_continued_after_any_token_sends_the_rest_once(
    text: str, stops: list[str], cuts: list[int], data: st.DataObject
) -> None:
    tokens = tokenise(text.encode(), cuts)
    known = data.draw(st.integers(0, len(tokens)))
    before, matched = Assembler(stops), False
    sent = []
    for token_id, piece in tokens[:known]:
        matched = before.push([token_id], [piece])
        if before.ready:
            sent.append(before.take())
        if matched:
            return
    after = Assembler(stops)
    assert not after.replay([i for i, _ in tokens[:known]], [t for _, t in tokens[:known]])
    rest, _ = feed(after, tokens[known:], [])
    assert check_chunks([*sent, *rest]) == expected(text, stops)


def test_a_token_inside_a_character_is_held_with_those_before_it() -> None:
    assembler = Assembler()
    assembler.push([1], ["a"])
    assert assembler.take() == Chunk(0, "a", [1])
    assembler.push([2], [None])
    assert not assembler.ready
    assembler.push([3], ["語"])
    assert assembler.take() == Chunk(1, "語", [2, 3])
    assembler.push([4], [""])
    assert assembler.take() == Chunk(4, "", [4])


def test_tokens_drawn_after_the_match_are_dropped() -> None:
    assembler = Assembler(["STOP"])
    assert assembler.push([1, 2, 3, 4], ["ok ST", "OP", " more", ""])
    assert assembler.take() == Chunk(0, "ok ", [1, 2])
    assert assembler.tokens == 2


def test_what_might_begin_a_stop_string_leaves_when_the_answer_ends() -> None:
    assembler = Assembler(["\n\n"])
    assembler.push([1], ["end\n"])
    assert not assembler.ready
    assembler.flush()
    assert assembler.take() == Chunk(0, "end\n", [1])
