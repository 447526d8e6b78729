"""The simulator's tokenizer is reversible, also for characters that span tokens."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_inference.engine.base import Message, Role
from parley_inference.engine.sim import text, tokenizer

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(deadline=None)
@given(TEXT)
def test_text_survives_encoding_and_decoding(written: str) -> None:
    ids = tokenizer.encode(written)
    assert tokenizer.decode(ids) == written
    assert all(map(tokenizer.is_token, ids))


@settings(deadline=None)
@given(st.lists(st.sampled_from(tokenizer.WORDS)))
def test_words_are_one_token_each(words: list[str]) -> None:
    assert len(tokenizer.encode("".join(words))) == len(words)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_an_answer_depends_on_its_seed_and_position_alone(seed: int, position: int) -> None:
    whole = list(itertools.islice(text.answer_tokens(seed), 320))
    again = list(itertools.islice(text.answer_tokens(seed), position, 320))
    assert whole[position:] == again
    assert tokenizer.decode(whole).startswith("[sim] ")


def test_answers_hold_characters_that_span_tokens() -> None:
    decoder = tokenizer.Decoder()
    texts = [decoder.push(i) for i in itertools.islice(text.answer_tokens(1), 2000)]
    assert None in texts
    joined = "".join(piece for piece in texts if piece)
    assert "\ufffd" not in joined
    assert any(ord(char) > 0xFFFF for char in joined)


def test_a_prompt_counts_its_messages_and_its_overhead_exactly() -> None:
    messages = [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "où est 東京?")]
    each = [len(tokenizer.encode(message.content)) + 2 for message in messages]
    assert len(tokenizer.render(messages)) == sum(each) + 2
