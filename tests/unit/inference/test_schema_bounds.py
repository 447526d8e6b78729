"""Schemas that would unfold into large grammars are refused without compiling them."""

import json
from typing import Any

import pytest

from parley_inference.schema_bounds import schema_mistakes

USUAL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[a-z]{1,20}$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 10},
    },
}


def wrong(schema: Any) -> str:
    return " ".join(mistake.message for mistake in schema_mistakes(json.dumps(schema)))


def nested(levels: int, most: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "maxItems": most}
    return schema


def test_a_usual_schema_passes() -> None:
    assert wrong(USUAL) == ""


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([1], "JSON object"),
        ({"minItems": 1e9}, "minItems"),
        ({"properties": {"a": {"maxLength": 5000}}}, "maxLength"),
        ({"anyOf": [{"maxLength": 1000}] * 8}, "repetitions in all"),
        (nested(3, 1000), "together"),
        ({"pattern": "a" * 300}, "pattern"),
        ({"pattern": "((a|b){1,200}){1,200}"}, "pattern"),
        ({"pattern": "a{99999999}"}, "pattern"),
        (nested(40, 1), "levels deep"),
        ({"enum": ["x" * 17000]}, "bytes"),
    ],
)
def test_a_large_grammar_is_refused(schema: Any, said: str) -> None:
    assert said in wrong(schema)


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, "NaN,"])
def test_what_is_no_json_is_refused(text: str) -> None:
    assert [mistake.message for mistake in schema_mistakes(text)] == ["must be JSON"]
