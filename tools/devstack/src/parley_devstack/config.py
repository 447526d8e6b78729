"""What a stack is made of, from the environment or from code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parley_devstack.errors import DevstackError
from parley_devstack.paths import Paths, checkout

ENGINES = ("vllm", "sim", "openai")
AUTHS = ("none", "keys")
MAX_REPLICAS = 16
SMOLLM2 = "SmolLM2-135M-Instruct"
DEFAULT_PORT = 8080


@dataclass(frozen=True, slots=True)
class StackConfig:
    """One stack: how many of each part, which engine, where its files are.

    `env` adds to the environment of processes, by kind ("session") or by name
    ("session-2"), and wins over everything else. `spare` reserves addresses, by kind
    ("session", "inference"), that others already know and that nobody serves until
    `Stack.add`. `port` 0 is a free port. `mongodb_uri` and `redis_url` name servers to
    use instead of starting some.
    """

    engine: str = "sim"
    model: str = ""  # a folder or a Hugging Face name; "" = SmolLM2 (vllm), "sim" (sim)
    model_id: str = ""
    # openai: up to `/chat/completions`, and a file with the key. Its model is named there.
    upstream: str = ""
    upstream_key_file: Path | None = None
    gateways: int = 1
    sessions: int = 1
    workers: int = 0  # make what waits, beside the sessions
    caches: int = 1
    engines: int = 1
    port: int = 0
    auth: str = "none"
    otlp_endpoint: str = ""
    mongodb_uri: str = ""
    mongodb_database: str = "parley"
    redis_url: str = ""
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    spare: Mapping[str, int] = field(default_factory=dict)
    persistent: bool = True  # Valkey writes what it has to disk
    data: Path | None = None  # default: .parley/data of the checkout
    logs: Path | None = None
    stack_file: Path | None = None
    paths: Paths = field(default_factory=checkout)
    start_seconds: float = 600.0
    stop_seconds: float = 20.0
    host: str = "127.0.0.1"

    @property
    def data_dir(self) -> Path:
        """The folder of the stores' files."""
        return self.data or self.paths.data

    @property
    def logs_dir(self) -> Path:
        """The folder of the log files."""
        return self.logs or self.paths.logs

    @property
    def stack_json(self) -> Path:
        """The file that lists the processes."""
        return self.stack_file or self.paths.stack_file

    @classmethod
    def in_folder(cls, folder: Path, **settings: object) -> StackConfig:
        """Returns a stack whose data, logs and stack.json all lie in `folder`."""
        places = {
            "data": folder / "data",
            "logs": folder / "logs",
            "stack_file": folder / "stack.json",
        }
        return cls(**{**places, **settings})  # type: ignore[arg-type]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StackConfig:
        """Reads ENGINE, MODEL, PORT, GATEWAYS and so on. Raises DevstackError, a line a mistake."""
        reader = _Reader(environment)
        config = cls(
            engine=reader.choice("ENGINE", ENGINES, "vllm"),
            model=environment.get("MODEL", ""),
            model_id=environment.get("MODEL_ID", ""),
            upstream=reader.upstream(),
            upstream_key_file=reader.file("UPSTREAM_KEY_FILE"),
            gateways=reader.number("GATEWAYS", 1, 1, MAX_REPLICAS),
            sessions=reader.number("SESSIONS", 1, 1, MAX_REPLICAS),
            workers=reader.number("WORKERS", 0, 0, MAX_REPLICAS),
            caches=reader.number("CACHES", 1, 0, MAX_REPLICAS),
            engines=reader.number("ENGINES", 1, 1, MAX_REPLICAS),
            port=reader.number("PORT", DEFAULT_PORT, 0, 65535),
            auth=reader.choice("AUTH", AUTHS, "none"),
            otlp_endpoint=environment.get("OTLP_ENDPOINT", ""),
            mongodb_uri=environment.get("MONGODB_URI", ""),
            redis_url=environment.get("REDIS_URL", ""),
        )
        reader.finish()
        return config

    def python_of(self, kind: str) -> str:
        """Returns the Python that runs a kind of process."""
        if kind == "inference" and self.engine == "vllm":
            return str(self.paths.inference_venv / "bin" / "python")
        return sys.executable


class _Reader:
    """Collects what is wrong with the environment, to say it all at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._mistakes: list[str] = []

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self._environment.get(name, "").strip()
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            expected = str(low) if low == high else f"a number from {low} to {high}"
            self._mistakes.append(f"{name}={text}: expected {expected}.")
            return default
        return int(text)

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        text = self._environment.get(name, "").strip() or default
        if text not in allowed:
            self._mistakes.append(f"{name}={text}: expected one of {', '.join(allowed)}.")
            return default
        return text

    def upstream(self) -> str:
        text = self._environment.get("UPSTREAM", "").strip().rstrip("/")
        wanted = self._environment.get("ENGINE", "").strip() == "openai"
        if wanted and not re.fullmatch(r"https?://[^@\s?#]+", text):
            self._mistakes.append(
                f"UPSTREAM={text}: ENGINE=openai needs the server's address, as http://host:8000/v1."
            )
        if text and not wanted:
            self._mistakes.append(f"UPSTREAM={text}: only ENGINE=openai has an upstream.")
        # An address alone: where every server has its API.
        return f"{text}/v1" if re.fullmatch(r"https?://[^/]+", text) else text

    def file(self, name: str) -> Path | None:
        text = self._environment.get(name, "").strip()
        if text and not os.access(text, os.R_OK):
            self._mistakes.append(f"{name}={text}: there is no such file that can be read.")
        return Path(text).resolve() if text else None

    def finish(self) -> None:
        if self._mistakes:
            raise DevstackError("\n".join(self._mistakes))
