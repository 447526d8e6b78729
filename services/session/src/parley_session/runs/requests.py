"""A run as a request to an engine."""

from __future__ import annotations

from collections.abc import Sequence

from parley.inference.v1 import inference_pb2 as pb

from parley_session.context.prompt import Prompt
from parley_session.domain.model import Options, Run


def generate_request(run: Run, prompt: Prompt, token_ids: Sequence[int]) -> pb.GenerateRequest:
    """Ask for the answer of a run, from `token_ids` on if there are any."""
    return pb.GenerateRequest(
        model=run.request.model,
        messages=prompt.chat_messages(),
        sampling=sampling_of(run.request.options),
        generated_token_ids=token_ids,
        template_time=prompt.template_time,
        # One tenant's prompts must not be told by how fast another's are answered.
        cache_salt=run.tenant,
        model_revision=prompt.model_revision,
    )


def sampling_of(options: Options) -> pb.SamplingOptions:
    """Say the options in the engines' terms."""
    return pb.SamplingOptions(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        stop=options.stop,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        json_schema=options.json_schema,
    )
