"""The seed of what is drawn from a position of an answer on."""

import hashlib
from typing import Final

_MASK: Final = (1 << 63) - 1


def seed_at(seed: int | None, position: int) -> int | None:
    """The request's own seed at the beginning, one derived from it further on; 63 bits.

    Continuing with the same seed would draw the same random numbers again.
    """
    if seed is None or not position:
        return None if seed is None else seed & _MASK
    digest = hashlib.sha256(f"{seed}:{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & _MASK
