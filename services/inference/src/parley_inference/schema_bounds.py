"""Bounds of JSON schemas: what a grammar compiler would have to unfold, judged without one.

A few bytes can ask for a grammar of millions of rules (`"minItems": 1000000` of an object); the
engine compiles it while others wait for their tokens.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from parley_kit.errors import FieldError

MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_SCHEMA_DEPTH: Final = 32
# What one repetition may ask for, and how many values and repetitions there may be in all:
# xgrammar 0.2 takes many seconds for one `maxLength` of 20,000.
MAX_REPEATS: Final = 1024
MAX_VALUES: Final = 4096
MAX_PATTERN_CHARACTERS: Final = 256
MAX_PATTERN_REPEATS: Final = 256
_FIELD: Final = "sampling.json_schema"
_COUNTS: Final = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
    | {"minContains", "maxContains"}
)
_BRACES: Final = re.compile(r"\{(\d*),?(\d*)\}")


def schema_mistakes(text: str) -> Iterator[FieldError]:
    """What is wrong with the schema; the first mistake of a kind is enough."""
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        yield FieldError(_FIELD, f"at most {MAX_SCHEMA_BYTES} bytes")
        return
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        yield FieldError(_FIELD, "must be JSON")
        return
    if not isinstance(schema, dict):
        yield FieldError(_FIELD, "must be a JSON object")
    elif _deeper_than(schema, MAX_SCHEMA_DEPTH):
        yield FieldError(_FIELD, f"at most {MAX_SCHEMA_DEPTH} levels deep")
    else:
        yield from _size_mistakes(schema)


def _size_mistakes(schema: dict[str, Any]) -> Iterator[FieldError]:
    nodes: list[Any] = [schema]
    values = 0
    product = 1
    while nodes:
        node = nodes.pop()
        values += len(node)
        if isinstance(node, dict):
            for name in _COUNTS & node.keys():
                count = node[name]
                if isinstance(count, int | float) and count > MAX_REPEATS:
                    yield FieldError(_FIELD, f"`{name}` at most {MAX_REPEATS}")
                    return
                # A string of at most so many characters has as many states.
                values += int(count) if isinstance(count, int | float) else 0
            product *= max(1, _repeats(node))
            if isinstance(pattern := node.get("pattern"), str) and _large(pattern):
                yield FieldError(_FIELD, "a `pattern` is too long or repeats too much")
                return
        nodes.extend(_children(node))
    if values > MAX_VALUES:
        yield FieldError(_FIELD, f"at most {MAX_VALUES} values and repetitions in all")
    if product > MAX_REPEATS**2:
        yield FieldError(_FIELD, "its arrays repeat too much together")


def _repeats(node: dict[str, Any]) -> int:
    """How often the items of an array are to be unfolded."""
    counts = [node.get(name) for name in ("minItems", "maxItems")]
    return max((count for count in counts if isinstance(count, int)), default=1)


def _large(pattern: str) -> bool:
    product = 1
    for low, high in _BRACES.findall(pattern):
        digits = high or low or "1"
        product *= max(1, int(digits)) if len(digits) < 7 else MAX_PATTERN_REPEATS + 1
    return len(pattern) > MAX_PATTERN_CHARACTERS or product > MAX_PATTERN_REPEATS


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether objects and arrays nest deeper; level by level, so that nothing recurses."""
    row: list[Any] = [value]
    for _ in range(levels):
        row = [child for node in row for child in _children(node)]
        if not row:
            return False
    return True


def _children(node: Any) -> Iterable[Any]:
    """The objects and arrays directly inside one."""
    inside = node.values() if isinstance(node, dict) else node
    return (child for child in inside if isinstance(child, dict | list))
