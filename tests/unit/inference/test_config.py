"""Settings are told apart from mistakes, in sentences."""

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


def test_the_openai_engine_is_refused_clearly() -> None:
    with pytest.raises(ValidationError, match="not available yet"):
        Settings(engine="openai", model="x")
