"""A tokenizer folder as `transformers` writes it, read without `transformers`.

Offers what ``hf_tokenizer`` uses of a fast tokenizer: the backend, the chat template, the ids
that a text begins with.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox
from tokenizers import Tokenizer


class LocalTokenizer:
    """Reads ``folder``. Raises OSError, ValueError."""

    def __init__(self, folder: Path) -> None:
        try:
            self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            # The library raises bare exceptions.
            raise ValueError(f"tokenizer.json: {error}") from error
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self.chat_template: str | None = _template(folder, config)
        self._names = {
            name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")
        }
        self._compiled = _compile(self.chat_template) if self.chat_template else None

    @property
    def bos_token_id(self) -> int | None:
        """Begins a text."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Ends a text."""
        return self._id("eos_token")

    def _id(self, name: str) -> int | None:
        token: int | None = self.backend_tokenizer.token_to_id(self._names[name])
        return token

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Encode, as `transformers` does."""
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": list(encoded.ids)}

    def length(self, text: str) -> int:
        """Tokens of a text without its beginning and end."""
        return len(self.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def apply_chat_template(
        self,
        messages: Sequence[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **more: Any,
    ) -> str:
        """Render, as `transformers` does; only without tokenizing. Raises jinja2.TemplateError."""
        if tokenize or self._compiled is None:
            raise ValueError("there is no chat template to render only")
        return self._compiled.render(
            messages=messages, add_generation_prompt=add_generation_prompt, **self._names, **more
        )


def _token(value: Any) -> str:
    """A special token, which some files describe by an object."""
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _compile(template: str) -> jinja2.Template:
    """As `transformers` compiles templates: sandboxed, blocks trimmed, a few functions more."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = datetime.now(UTC).strftime
    return environment.from_string(template)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
