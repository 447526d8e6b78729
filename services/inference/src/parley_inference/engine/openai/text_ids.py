"""Text as token ids, for upstreams that give text and no tokens.

An answer is resumed, logged and handed over by its token ids (``docs/runs.md``). These ids hold
the text itself, so that whoever has them has the answer, whatever the upstream's tokenizer:
``piece << 26 | n << 24 | b``, with one to three bytes ``b`` (big-endian) and ``piece`` 1 on the
first id of each piece that the upstream sent. A piece is a token, or the few that the upstream
sent together; that is what answers are counted by until the upstream gives its own count.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

TOKENIZER_ID: Final = "text:1"
VOCAB_SIZE: Final = 1 << 27
_PIECE: Final = 1 << 26
_BYTES: Final = 3


def encode_piece(text: str) -> list[int]:
    """The ids of one piece of text; none for an empty one."""
    data = text.encode()
    ids = [
        len(part) << 24 | int.from_bytes(part, "big")
        for part in (data[at : at + _BYTES] for at in range(0, len(data), _BYTES))
    ]
    if ids:
        ids[0] |= _PIECE
    return ids


def count_pieces(ids: Sequence[int]) -> int:
    """How many pieces the ids begin."""
    return sum(1 for token_id in ids if token_id & _PIECE)


def decode_pieces(ids: Sequence[int]) -> list[str | None]:
    """For each id the text that it completes, as ``Step.texts``; ValueError if they are none."""
    texts: list[str | None] = []
    for piece in _pieces(ids):
        data = b"".join(_bytes_of(token_id) for token_id in piece)
        texts += [None] * (len(piece) - 1)
        texts.append(data.decode())
    return texts


def _pieces(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    begins = [at for at, token_id in enumerate(ids) if token_id & _PIECE]
    if ids and (not begins or begins[0]):
        raise ValueError("the ids do not begin with a piece")
    for begin, end in pairwise([*begins, len(ids)]):
        yield ids[begin:end]


def _bytes_of(token_id: int) -> bytes:
    count = token_id >> 24 & 3
    value = token_id & 0xFFFFFF
    if not count or value >> 8 * count or token_id >= VOCAB_SIZE:
        raise ValueError("not an id of text")
    return value.to_bytes(count, "big")
