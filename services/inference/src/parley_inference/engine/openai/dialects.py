"""What the known upstreams take beyond OpenAI's own dialect, and what they do not take of it."""

import json
from dataclasses import dataclass
from typing import Any, Final

from parley_inference.engine.base import EngineRequest, RequestRefused, Sampling
from parley_inference.engine.openai.text_ids import count_pieces, decode_pieces
from parley_inference.engine.seeds import seed_at


@dataclass(frozen=True, slots=True)
class Dialect:
    """Fields that an upstream takes. ``prefix``: it goes on with an unfinished last message."""

    max_tokens: str = "max_tokens"
    top_k: bool = False
    seed: bool = True
    penalties: bool = True
    json_schema: bool = True
    cache_salt: bool = False
    prefix: bool = False


DIALECTS: Final = {
    "openai": Dialect(max_tokens="max_completion_tokens"),
    "vllm": Dialect(top_k=True, cache_salt=True, prefix=True),
    "llama_cpp": Dialect(top_k=True),
    "transformers": Dialect(penalties=False, json_schema=False),
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
    if dialect.penalties and (sampling.presence_penalty or sampling.frequency_penalty):
        body["presence_penalty"] = sampling.presence_penalty
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.seed is not None:
        body["seed"] = seed_at(sampling.seed, existing)
    if request.cache_salt and dialect.cache_salt:
        body["cache_salt"] = request.cache_salt
    if sampling.json_schema:
        body["response_format"] = _response_format(sampling.json_schema)
    if request.generated:
        text = "".join(filter(None, decode_pieces(request.generated)))
        body["messages"].append({"role": "assistant", "content": text})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def _response_format(schema: str) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": json.loads(schema), "strict": True},
    }
