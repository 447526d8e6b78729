"""A prefix cache by hashed blocks, as real engines keep it, without the tensors."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

BLOCK_TOKENS: Final = 16


class PrefixCache:
    """Remembers which prefixes were computed, the least recently used going first."""

    def __init__(self, blocks: int) -> None:
        """``blocks``: most blocks of ``BLOCK_TOKENS`` tokens to remember."""
        self._limit = blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def lookup(self, salt: str, token_ids: Sequence[int]) -> int:
        """Tokens at the beginning of ``token_ids`` that are cached; never all of them."""
        cached = 0
        for block in _block_hashes(salt, token_ids):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            cached += BLOCK_TOKENS
        # The last token is always computed: its logits draw the next one.
        return min(cached, max(len(token_ids) - 1, 0) // BLOCK_TOKENS * BLOCK_TOKENS)

    def insert(self, salt: str, token_ids: Sequence[int]) -> None:
        """Remember the whole blocks of ``token_ids``."""
        for block in _block_hashes(salt, token_ids):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._limit:
            self._blocks.popitem(last=False)


def _block_hashes(salt: str, token_ids: Sequence[int]) -> Iterator[int]:
    """One hash a whole block, each over all tokens before it as well."""
    previous = hash(salt)
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        previous = hash((previous, tuple(token_ids[start : start + BLOCK_TOKENS])))
        yield previous
