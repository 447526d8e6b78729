"""What the inference service can be told: ``PARLEY_INFERENCE_…`` variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from parley_kit.config import Port, ServiceSettings


class Settings(ServiceSettings):
    """Settings of one replica. Times are in seconds, lengths in tokens unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_INFERENCE_")

    port: Port = Field(default=50053, description="Port to serve gRPC on; 0: a free one.")
    admin_port: Port = Field(
        default=9053, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )

    engine: Literal["vllm", "sim", "openai"] = Field(
        default="vllm",
        description="What draws the tokens: vLLM in this process, or a simulator that says so in "
        "every answer. `openai` is not available yet.",
    )
    model: str = Field(
        default="",
        max_length=1024,
        validate_default=True,
        description="A model folder or a Hugging Face name; required by vllm.",
    )
    model_id: str = Field(
        default="",
        max_length=256,
        description="Name that the model is served as; empty: the last part of MODEL.",
    )
    model_revision: str = Field(
        default="",
        max_length=128,
        description="Revision to load and to report; empty: the newest, reported by its own name.",
    )
    max_model_len: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="Context length, prompt and answer together; 0: the model's own.",
    )
    max_num_seqs: int = Field(
        default=32, ge=1, le=4096, description="vllm: requests in the batch at most."
    )
    kv_cache_gib: int = Field(
        default=1, ge=1, le=4096, description="vllm on CPU: memory of the KV cache in GiB."
    )
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="vllm on GPU: share of its memory to use."
    )
    cpu_threads: str = Field(
        default="",
        max_length=256,
        description="vllm on CPU: cores of its threads, as in VLLM_CPU_OMP_THREADS_BIND "
        "(`0-3`, or `nobind`); empty: one thread a physical core.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="vllm: compile the model at start (slower start, faster tokens); auto: where "
        "a C++ compiler is found or none is needed.",
    )

    max_waiting: int = Field(
        default=128,
        ge=0,
        le=100_000,
        description="Requests that may wait for a place in the batch before others are refused.",
    )
    coalesce_seconds: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Tokens of this time leave as one chunk, the first at once; 0: each leaves as "
        "soon as the one before it is written.",
    )
    max_messages: int = Field(
        default=2048, ge=1, le=100_000, description="Messages of a prompt at most."
    )
    max_prompt_bytes: int = Field(
        default=2 * 1024 * 1024,
        ge=1,
        le=64 * 1024 * 1024,
        description="UTF-8 bytes of all messages of a prompt at most.",
    )
    load_interval_seconds: float = Field(
        default=0.1, ge=0.01, le=1, description="Least time between two load reports to a watcher."
    )
    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        le=120,
        description="On SIGTERM: time between saying `not ready` and refusing new requests, so "
        "that callers notice.",
    )
    exit_when_engine_dies: bool = Field(
        default=True,
        description="End the process (status 4) when its engine has died, so that it is started "
        "again; otherwise it stays and says that it is not ready.",
    )

    sim_ttft: float = Field(default=0.2, ge=0, le=600, description="sim: time to the first token.")
    sim_itl: float = Field(default=0.02, ge=0, le=60, description="sim: time between two tokens.")
    sim_concurrency: int = Field(
        default=64, ge=1, le=100_000, description="sim: requests in the batch at most."
    )
    sim_answer_tokens: int = Field(
        default=64,
        ge=0,
        le=1_000_000,
        description="sim: tokens of an answer; 0: as many as the request allows.",
    )
    sim_seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**64,
        description="sim: seed of requests that bring none; unset: a hash of the prompt.",
    )
    sim_faults: bool = Field(
        default=False, description="sim: obey `[[sim:…]]` directives of the last message."
    )

    @field_validator("engine")
    @classmethod
    def _is_available(cls, value: str) -> str:
        if value == "openai":
            raise ValueError("this engine is not available yet; choose vllm or sim")
        return value

    @field_validator("model")
    @classmethod
    def _is_named(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("engine") == "vllm":
            raise ValueError("is required by the vllm engine: a folder or a Hugging Face name")
        return value

    @property
    def served_model_id(self) -> str:
        """The name that the model is served as."""
        if self.model_id:
            return self.model_id
        return Path(self.model).name if self.model else self.engine
