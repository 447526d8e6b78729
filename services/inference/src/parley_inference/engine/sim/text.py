"""What the simulator says: seeded words, the same for the same seed or the same prompt."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Final

from parley_inference.engine.sim import tokenizer

# A simulated answer says what it is.
PREFIX: Final = "[sim]"
_PREFIX_IDS: Final = tuple(tokenizer.encode(PREFIX))
_STOP_IDS: Final = tuple(tokenizer.encode("."))
_WORD_TOKENS: Final = tuple(tuple(_ids) for _ids in map(tokenizer.encode, tokenizer.WORDS))
# Some words are spelled in bytes, so that characters span tokens.
_SPELLED: Final = tuple(
    tuple(
        tokenizer.pack(word.encode()[start : start + 3])
        for start in range(0, len(word.encode()), 3)
    )
    for word in tokenizer.WORDS
    if not word.isascii()
)


def seed_of(seed: int | None, prompt_token_ids: Sequence[int]) -> int:
    """The request's seed, or one derived from its prompt."""
    if seed is not None:
        return seed
    data = b"".join(token_id.to_bytes(4, "big") for token_id in prompt_token_ids)
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def answer_tokens(seed: int) -> Iterator[int]:
    """Token ids of an endless answer that depends on ``seed`` alone."""
    draw = random.Random(seed)  # noqa: S311 - text of a simulator, not a secret
    yield from _PREFIX_IDS
    while True:
        for _ in range(draw.randint(4, 14)):
            words = _SPELLED if draw.random() < 0.08 else _WORD_TOKENS
            yield from draw.choice(words)
        yield from _STOP_IDS
