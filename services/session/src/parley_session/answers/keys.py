"""What makes two questions comparable, as digests (SHA-256)."""

from __future__ import annotations

import hashlib
import json
import unicodedata

from parley_session.answers.base import Query
from parley_session.context.prompt import Prompt
from parley_session.domain.model import Options, Run


def query_of(run: Run, prompt: Prompt) -> Query:
    """Make the query of a run whose prompt is fixed."""
    earlier = prompt.messages[:-1]
    context = [run.request.options.history.value]
    if prompt.summary:
        context += ["summary", _normalised(prompt.summary)]
    for message in earlier:
        context += [message.role.value, _normalised(message.content)]
    return Query(
        tenant=run.tenant,
        user=run.user,
        model=run.request.model,
        model_revision=prompt.model_revision,
        options_digest=_digest(_decoding(run.request.options)),
        system_digest=hashlib.sha256(prompt.system.encode()).digest(),
        context_fingerprint=_digest(context),
        context_messages=len(earlier),
        question=prompt.messages[-1].content,
        temperature=run.request.options.temperature,
        seeded=run.request.options.seed is not None,
    )


def _decoding(options: Options) -> list[object]:
    """What of the options has a say in the text; not deadlines, nor history (see above)."""
    return [
        options.max_tokens,
        # As floats, so that 1 and 1.0 are one.
        float(options.temperature),
        float(options.top_p),
        options.top_k,
        options.seed,
        list(options.stop),
        float(options.presence_penalty),
        float(options.frequency_penalty),
        options.json_schema,
    ]


def _normalised(text: str) -> str:
    """One form for what looks the same: composed characters, no white space around."""
    return unicodedata.normalize("NFC", text).strip()


def _digest(value: object) -> bytes:
    # JSON: no two different values have one form (a joined string would).
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).digest()
