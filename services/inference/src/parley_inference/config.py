"""What the inference service can be told: ``PARLEY_INFERENCE_…`` variables."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from parley_kit.config import Port, RpcServiceSettings


class Settings(RpcServiceSettings):
    """Settings of one replica. Times are in seconds, lengths in tokens unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_INFERENCE_")
    TLS_CALLS: ClassVar[bool] = False

    port: Port = Field(default=50053, description="Port to serve gRPC on; 0: a free one.")
    admin_port: Port = Field(
        default=9053, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )

    engine: Literal["vllm", "sim", "openai"] = Field(
        default="vllm",
        description="What draws the tokens: vLLM in this process, an upstream that speaks OpenAI's "
        "HTTP dialect, or a simulator that says so in every answer.",
    )
    model: str = Field(
        default="",
        max_length=1024,
        validate_default=True,
        description="vllm: a model folder or a Hugging Face name. openai: the model's name at the "
        "upstream. Required by both.",
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
        default=32,
        ge=1,
        le=4096,
        description="vllm: requests in the batch at most; openai: at the upstream at most.",
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
    tensor_parallel_size: int = Field(
        default=1, ge=1, le=64, description="vllm: devices that each layer is spread over."
    )
    pipeline_parallel_size: int = Field(
        default=1,
        ge=1,
        le=64,
        description="vllm: groups of devices that the layers are divided among; times "
        "TENSOR_PARALLEL_SIZE, the devices needed.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="vllm: machines that the model is spread over, a process of this service on "
        "each; the devices are divided evenly among them.",
    )
    node_rank: int = Field(
        default=0,
        ge=0,
        le=63,
        description="vllm: which of them this is. 0 leads and serves; the others join it, have all "
        "settings but this one in common with it, and serve nobody.",
    )
    leader_address: str = Field(
        default="",
        max_length=253,
        pattern=r"^[A-Za-z0-9.:-]*$",
        description="vllm: name or address by which all of them reach the leader.",
    )
    leader_port: int = Field(
        default=29501, ge=1, le=65535, description="vllm: port of the leader where they meet."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="vllm: type of weights and activations; auto: the model's own, or float32 for "
        "bfloat16 on an x86 CPU, where that fits into memory.",
    )
    quantization: str = Field(
        default="",
        max_length=64,
        pattern=r"^[a-z0-9_-]*$",
        description="vllm: how weights are quantised, by vLLM's name for it; empty: as the model's "
        "own configuration says.",
    )
    adapters: dict[str, Path] = Field(
        default_factory=dict,
        max_length=64,
        description="vllm: LoRA adapters, each served as a model of its own: a JSON object of name "
        "and folder (`adapter_config.json` and `adapter_model.safetensors`).",
    )
    adapter_base_model: str = Field(
        default="",
        max_length=1024,
        description="vllm: what every adapter's configuration must give as its base model; empty: "
        "that is not looked at, the shapes of the weights alone are.",
    )
    max_adapter_rank: int = Field(
        default=64, ge=1, le=512, description="vllm: rank of an adapter at most."
    )
    max_adapters_at_once: int = Field(
        default=4,
        ge=1,
        le=64,
        description="vllm: adapters that one batch mixes at most; memory is set aside for them.",
    )
    grammar_backend: Literal["xgrammar", "guidance"] = Field(
        default="xgrammar", description="vllm: what compiles JSON schemas."
    )
    grammar_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=60,
        description="vllm: how long a request waits for its JSON schema to be judged; one that "
        "takes longer is refused.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="vllm: compile the model at start (slower start, faster tokens); auto: on a "
        "GPU, and on a CPU that has AVX-512 where a C++ compiler is found.",
    )

    max_waiting: int = Field(
        default=128,
        ge=0,
        le=100_000,
        description="Requests that may wait for a place in the batch before others are refused.",
    )
    max_queued_tokens: int = Field(
        default=1_000_000,
        ge=1,
        le=1_000_000_000,
        description="Prompt tokens that may wait in all before further requests are refused; one "
        "that waits alone is let in.",
    )
    tenant_shares: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        default_factory=dict,
        max_length=10_000,
        description="Shares of the engine that tenants have while others wait: a JSON object of "
        "cache salt (the tenant's name) and weight; 1 for those not named.",
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

    upstream_url: str = Field(
        default="",
        max_length=2048,
        validate_default=True,
        description="openai: the upstream's address up to `/chat/completions`, as "
        "`http://host:8000/v1`; https is verified. Required by openai.",
    )
    upstream_fleet: Literal["external", "own"] = Field(
        default="external",
        description="openai: whose the upstream is. `own`: the operator's, as engines of their own "
        "are; `external`: what is asked leaves the fleet, and tenants for whom that is forbidden "
        "(PARLEY_SESSION_ALLOWED_ENGINES) are not served.",
    )
    upstream_dialect: Literal["openai", "vllm", "llama_cpp", "transformers"] = Field(
        default="openai",
        description="openai: the server behind it, which decides what options can be asked for "
        "and whether a broken-off answer can be continued (vllm).",
    )
    upstream_api_key: SecretStr = Field(
        default=SecretStr(""), description="openai: the key that is sent as a bearer token."
    )
    upstream_api_key_file: Path | None = Field(
        default=None,
        description="openai: a file that holds the key instead; read again every few seconds.",
    )
    upstream_ca_file: Path | None = Field(
        default=None,
        description="openai: certificates (PEM) to trust instead of the system's own.",
    )
    upstream_tokenizer: Path | None = Field(
        default=None,
        description="openai: a folder with the model's tokenizer.json and chat template, to count "
        "tokens exactly; unset: they are estimated at three bytes each.",
    )
    upstream_retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="openai: further tries of a request of which nothing has come yet.",
    )
    upstream_silence_seconds: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="openai: an answer of which nothing comes for so long is given up.",
    )
    upstream_start_seconds: float = Field(
        default=600.0,
        ge=0,
        le=86_400,
        description="openai: how long to wait at start for the upstream to answer.",
    )
    upstream_look_seconds: float = Field(
        default=5.0,
        gt=0,
        le=600,
        description="openai: time between two looks at the upstream's health; after three failed "
        "ones the replica is not ready until one succeeds.",
    )

    @field_validator("model")
    @classmethod
    def _is_named(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("engine") == "vllm":
            raise ValueError("is required by the vllm engine: a folder or a Hugging Face name")
        if not value and info.data.get("engine") == "openai":
            raise ValueError("is required by the openai engine: the model's name at the upstream")
        return value

    @field_validator("adapters")
    @classmethod
    def _are_named(cls, value: dict[str, Path], info: ValidationInfo) -> dict[str, Path]:
        if value and info.data.get("engine") != "vllm":
            raise ValueError("only the vllm engine serves adapters")
        if any(not re.fullmatch(r"[\w.:/-]{1,256}", name) for name in value):
            raise ValueError("names are 1 to 256 letters, digits and any of ._:/-")
        return value

    @field_validator("upstream_url")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("engine") == "openai":
            raise ValueError("is required by the openai engine")
        if value and not re.fullmatch(r"https?://[^@\s?#]+", value):
            raise ValueError("must be http(s)://host[:port][/path] without user, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.upstream_api_key.get_secret_value() and self.upstream_api_key_file:
            raise ValueError("give UPSTREAM_API_KEY or UPSTREAM_API_KEY_FILE, not both")
        return self

    @model_validator(mode="after")
    def _is_spread_evenly(self) -> Self:
        ranks = self.tensor_parallel_size * self.pipeline_parallel_size
        if self.node_rank >= self.nodes:
            raise ValueError(
                f"NODE_RANK is {self.node_rank}, and the last of NODES {self.nodes - 1}"
            )
        if self.nodes == 1:
            return self
        if self.engine != "vllm":
            raise ValueError("only the vllm engine is spread over several NODES")
        if not self.leader_address:
            raise ValueError("several NODES need LEADER_ADDRESS, where they meet")
        if ranks % self.nodes:
            raise ValueError(
                f"TENSOR_PARALLEL_SIZE times PIPELINE_PARALLEL_SIZE is {ranks}, which cannot be "
                f"divided among {self.nodes} NODES"
            )
        return self

    @model_validator(mode="after")
    def _has_names_of_its_own(self) -> Self:
        if self.served_model_id in self.adapters:
            raise ValueError("an adapter cannot have the model's own name")
        return self

    @property
    def served_model_id(self) -> str:
        """The name that the model is served as."""
        if self.model_id:
            return self.model_id
        return Path(self.model).name if self.model else self.engine
