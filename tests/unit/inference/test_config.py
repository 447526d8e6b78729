"""Settings are told apart from mistakes, in sentences."""

from typing import Any

import pytest
from pydantic import ValidationError

from parley_inference.config import Settings


def test_the_served_name_is_the_last_part_of_the_model() -> None:
    assert Settings(model="/models/SmolLM2-135M-Instruct").served_model_id == (
        "SmolLM2-135M-Instruct"
    )
    assert Settings(model="Qwen/Qwen3-0.6B").served_model_id == "Qwen3-0.6B"
    assert Settings(engine="sim").served_model_id == "sim"
    assert Settings(engine="sim", model="m", model_id="name").served_model_id == "name"


def test_vllm_without_a_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="is required by the vllm engine"):
        Settings(engine="vllm")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "x"}, "upstream_url"),
        ({"upstream_url": "http://h/v1"}, "the model's name at the upstream"),
        ({"model": "x", "upstream_url": "http://user:pw@h/v1"}, "without user"),
        ({"model": "x", "upstream_url": "ftp://h/v1"}, "without user"),
        (
            {
                "model": "x",
                "upstream_url": "http://h/v1",
                "upstream_api_key": "k",
                "upstream_api_key_file": "/k",
            },
            "not both",
        ),
    ],
)
def test_an_upstream_is_named_whole(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        Settings.model_validate({"engine": "openai", **settings})
    assert "pw@" not in str(refused.value)


def test_an_address_ends_without_a_slash() -> None:
    settings = Settings(engine="openai", model="x", upstream_url="http://h/v1/")
    assert settings.upstream_url == "http://h/v1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "sim", "tenant_shares": {"t": 0}}, "greater than 0"),
        ({"engine": "sim", "max_queued_tokens": 0}, "greater than or equal"),
        ({"engine": "sim", "adapters": {"a": "/a"}}, "only the vllm engine"),
        ({"model": "/m", "adapters": {"a b": "/a"}}, "letters, digits"),
        ({"model": "/m", "model_id": "a", "adapters": {"a": "/a"}}, "the model's own name"),
        ({"model": "/m", "adapters": {f"a{n}": "/a" for n in range(65)}}, "at most 64"),
        ({"model": "/m", "tensor_parallel_size": 0}, "greater than or equal"),
        ({"model": "/m", "pipeline_parallel_size": 65}, "less than or equal"),
        ({"model": "/m", "quantization": "a b"}, "pattern"),
        ({"model": "/m", "dtype": "int8"}, "bfloat16"),
        ({"model": "/m", "node_rank": 1}, "the last of NODES 0"),
        ({"engine": "sim", "nodes": 2}, "only the vllm engine is spread"),
        ({"model": "/m", "nodes": 2, "pipeline_parallel_size": 2}, "need LEADER_ADDRESS"),
        ({"model": "/m", "nodes": 2, "leader_address": "a b"}, "pattern"),
        (
            {"model": "/m", "nodes": 2, "leader_address": "h", "pipeline_parallel_size": 3},
            "is 3, which cannot be divided among 2 NODES",
        ),
    ],
)
def test_settings_of_engines_are_bounded(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(**settings)
