"""The simulator's tokenizer: reversible, without a learned vocabulary.

A token is a frequent word, or up to three bytes of UTF-8 packed into its id. Characters of two to
four bytes therefore often end inside a token, as with byte-level vocabularies of real models.

==============  =====================================================
id              meaning
==============  =====================================================
0               beginning of a prompt
1, 2, 3         a system, user or assistant message begins
4               a message ends; ends an answer
2^24 + i        the word ``WORDS[i]`` with the space before it
n * 2^25 + b    ``n`` (1 to 3) bytes, big-endian in ``b`` (24 bits)
==============  =====================================================
"""

import codecs
import hashlib
import re
from collections.abc import Sequence
from typing import Final

from parley_inference.engine.base import Message, Role

BEGIN: Final = 0
END: Final = 4
_ROLES: Final = {Role.SYSTEM: 1, Role.USER: 2, Role.ASSISTANT: 3}

# What answers are made of; several words hold characters of two, three and four bytes.
_TEXT: Final = (
    "the of and to in is that it for as with on are by this be from at or an which have one "
    "can all their more when will other some two time these may then about many most over "
    "such after first water between long where through here must because each just those "
    "people how too state well every under last right move thing general school never same "
    "another begin while number part turn real leave might great world small answer question "
    "model token engine replica queue cache prompt stream run turn chat message session "
    "café naïve über señor façade Zürich Ελλάδα мир 日本 語 東京 한국 🙂 🚀 👩‍💻 ½ … €"
)
WORDS: Final[tuple[str, ...]] = tuple(" " + word for word in dict.fromkeys(_TEXT.split()))
_WORD_BASE: Final = 1 << 24
_BYTES_SHIFT: Final = 25
_WORD_IDS: Final = {word: _WORD_BASE + index for index, word in enumerate(WORDS)}
VOCAB_SIZE: Final = 4 << _BYTES_SHIFT

_PIECES: Final = re.compile(r" ?\S+|\s")


def tokenizer_id() -> str:
    """Names this vocabulary and template."""
    return "sim:" + hashlib.sha256("\0".join(WORDS).encode()).hexdigest()[:16]


def encode(text: str) -> list[int]:
    """Token ids of ``text``; ``decode`` gives it back."""
    ids: list[int] = []
    words = _WORD_IDS
    for piece in _PIECES.findall(text):
        word = words.get(piece)
        if word is not None:
            ids.append(word)
            continue
        data = piece.encode()
        ids += [pack(data[start : start + 3]) for start in range(0, len(data), 3)]
    return ids


def pack(data: bytes) -> int:
    """The token of one to three bytes."""
    return len(data) << _BYTES_SHIFT | int.from_bytes(data, "big")


def render(messages: Sequence[Message]) -> list[int]:
    """The chat template: each message between its marker and ``END``, then the answer's marker."""
    ids = [BEGIN]
    for message in messages:
        ids.append(_ROLES[message.role])
        ids += encode(message.content)
        ids.append(END)
    ids.append(_ROLES[Role.ASSISTANT])
    return ids


def is_token(token_id: int) -> bool:
    """Whether ``decode`` knows the id."""
    count = token_id >> _BYTES_SHIFT
    if count == 0:
        return token_id <= END or 0 <= token_id - _WORD_BASE < len(WORDS)
    return count <= 3 and token_id & (1 << _BYTES_SHIFT) - 1 < 1 << 8 * count


class Decoder:
    """Turns tokens into text one by one, across characters that span tokens."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # Whole characters before one that is not whole yet, of the same tokens.
        self._held = ""

    def push(self, token_id: int) -> str | None:
        """The text that this token completes; None if it ends inside a character."""
        count = token_id >> _BYTES_SHIFT
        if not count:
            # A word after half a character: the half will not be completed any more.
            rest = self._held + self._utf8.decode(b"", final=True)
            self._utf8.reset()
            self._held = ""
            return rest + WORDS[token_id - _WORD_BASE] if token_id >= _WORD_BASE else rest
        data = (token_id & (1 << _BYTES_SHIFT) - 1).to_bytes(count, "big")
        text = self._held + self._utf8.decode(data)
        if self._utf8.getstate()[0]:
            self._held = text
            return None
        self._held = ""
        return text


def decode(token_ids: Sequence[int]) -> str:
    """The text of an answer; an unfinished last character is left out."""
    decoder = Decoder()
    return "".join(filter(None, map(decoder.push, token_ids)))
