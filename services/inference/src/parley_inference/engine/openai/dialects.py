"""What the known upstreams take beyond OpenAI's own dialect, and what they do not take of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from parley_inference.engine.base import EngineRequest, RequestRefused, Sampling
from parley_inference.engine.openai.text_ids import count_pieces, decode_pieces
from parley_inference.engine.seeds import seed_at


@dataclass(frozen=True, slots=True)
class Dialect:
    """Fields that an upstream takes. ``prefix``: it goes on with an unfinished last message.

    ``neutral``: sent where the request does not say otherwise, because the upstream would put in
    a value of its own (or of the model's files), and options here are what was asked for alone.
    ``schema_as``: the kind of ``response_format`` in which it takes a JSON schema.
    ``generation_config``: it draws greedily unless an object of this name, in JSON, says that it is
    to sample; that takes ``neutral`` and ``top_k`` too.
    """

    max_tokens: str = "max_tokens"
    top_k: bool = False
    seed: bool = True
    penalties: bool = True
    json_schema: bool = True
    schema_as: Literal["json_schema", "json_object"] = "json_schema"
    neutral: Mapping[str, float] = field(default_factory=dict)
    generation_config: bool = False
    cache_salt: bool = False
    prefix: bool = False


DIALECTS: Final = {
    "openai": Dialect(max_tokens="max_completion_tokens"),
    "vllm": Dialect(
        top_k=True,
        cache_salt=True,
        prefix=True,
        neutral={"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
    ),
    # Its Python package's server knows no other form of a schema; its own server takes it too.
    "llama_cpp": Dialect(
        top_k=True,
        schema_as="json_object",
        neutral={"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    ),
    "transformers": Dialect(
        top_k=True,
        penalties=False,
        json_schema=False,
        generation_config=True,
        neutral={"top_k": 0, "repetition_penalty": 1.0},
    ),
}


def check(dialect: Dialect, sampling: Sampling) -> None:
    """Raise RequestRefused for options that the upstream would not follow."""
    if sampling.top_k and not dialect.top_k:
        raise RequestRefused("sampling.top_k", "the upstream of this model does not take it")
    if (sampling.presence_penalty or sampling.frequency_penalty) and not dialect.penalties:
        raise RequestRefused("sampling.presence_penalty", "the upstream does not take penalties")
    if sampling.json_schema and not dialect.json_schema:
        raise RequestRefused("sampling.json_schema", "the upstream follows no JSON schema")
    if sampling.seed is not None and not dialect.seed:
        raise RequestRefused("sampling.seed", "the upstream does not take it")


def request_body(dialect: Dialect, model: str, request: EngineRequest) -> dict[str, Any]:
    """The JSON of a chat completion, one choice, streamed, without log probabilities."""
    sampling = request.sampling
    existing = count_pieces(request.generated)
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": message.role.value, "content": message.content}
            for message in request.prompt.messages
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        dialect.max_tokens: sampling.max_tokens - existing,
    }
    options = {**dialect.neutral} | ({"top_k": sampling.top_k} if sampling.top_k else {})
    if dialect.generation_config:
        sampled = {"do_sample": sampling.temperature > 0}
        body["generation_config"] = json.dumps(sampled | options)
    else:
        body |= options
    if dialect.penalties and (sampling.presence_penalty or sampling.frequency_penalty):
        body["presence_penalty"] = sampling.presence_penalty
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.seed is not None:
        body["seed"] = seed_at(sampling.seed, existing)
    if request.cache_salt and dialect.cache_salt:
        body["cache_salt"] = request.cache_salt
    if sampling.json_schema:
        body["response_format"] = _response_format(dialect, json.loads(sampling.json_schema))
    if request.generated:
        text = "".join(filter(None, decode_pieces(request.generated)))
        body["messages"].append({"role": "assistant", "content": text})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def _response_format(dialect: Dialect, schema: dict[str, Any]) -> dict[str, Any]:
    if dialect.schema_as == "json_object":
        return {"type": "json_object", "schema": schema}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}
