"""The simulated prefix cache shares whole blocks of what was computed, per salt."""

from parley_inference.engine.sim.prefix_cache import BLOCK_TOKENS, PrefixCache

PROMPT = list(range(BLOCK_TOKENS * 3 + 5))


def test_a_second_prompt_with_the_same_beginning_finds_its_whole_blocks() -> None:
    cache = PrefixCache(100)
    assert cache.lookup("", PROMPT) == 0
    cache.insert("", PROMPT)
    assert cache.lookup("", [*PROMPT, 1, 2, 3]) == BLOCK_TOKENS * 3


def test_a_prompt_is_never_cached_to_its_last_token() -> None:
    cache = PrefixCache(100)
    cache.insert("", PROMPT[: BLOCK_TOKENS * 2])
    assert cache.lookup("", PROMPT[: BLOCK_TOKENS * 2]) == BLOCK_TOKENS


def test_salts_do_not_share() -> None:
    cache = PrefixCache(100)
    cache.insert("tenant-a", PROMPT)
    assert cache.lookup("tenant-b", PROMPT) == 0


def test_a_block_is_found_only_behind_the_same_blocks() -> None:
    cache = PrefixCache(100)
    cache.insert("", PROMPT)
    assert cache.lookup("", [99, *PROMPT[1:]]) == 0


def test_the_cache_is_bounded() -> None:
    cache = PrefixCache(2)
    cache.insert("", PROMPT)
    assert cache.lookup("", PROMPT) == 0
    cache.insert("", PROMPT[:BLOCK_TOKENS])
    assert cache.lookup("", PROMPT) == BLOCK_TOKENS
