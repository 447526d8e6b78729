"""What vLLM reads from the environment; to be set before it is imported for the first time.

A variable that is set already stands: an operator's word goes before ours.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def prepare_environment(
    *, model: str, kv_cache_gib: int, threads: str, log_level: str, log_format: str
) -> None:
    """Set vLLM's variables for this process and the engine's own, which inherit them.

    No usage statistics are sent. A model that is a folder needs no network, so none is tried.
    """
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib),
        "VLLM_LOGGING_CONFIG_PATH": str(_logging_config(log_level, log_format)),
        # Names the spans of the engine's own processes.
        "OTEL_SERVICE_NAME": "inference-engine",
        # Of the caches of compiled models, the one that can be read again on CPU: with vLLM 0.32
        # and torch 2.13 the other one is compiled anew at every start.
        "VLLM_USE_AOT_COMPILE": "0",
        # The tokenizer's threads and the engine's forks do not go together.
        "TOKENIZERS_PARALLELISM": "false",
    }
    if threads:
        values["VLLM_CPU_OMP_THREADS_BIND"] = threads
    if Path(model).is_dir():
        values |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, value)


def _logging_config(level: str, fmt: str) -> Path:
    """A file that gives the engine's processes the same log lines as ours."""
    formatter: dict[str, Any] = (
        {"()": "parley_kit.logs.JsonFormatter", "service": "inference-engine"}
        if fmt == "json"
        else {"()": "parley_kit.logs.ConsoleFormatter"}
    )
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stdout",
            }
        },
        "loggers": {"vllm": {"handlers": ["stdout"], "level": level.upper(), "propagate": False}},
    }
    # Removed by the process that made it, when the engine has stopped.
    path = Path(tempfile.mkdtemp(prefix="parley-inference-")) / "logging.json"
    path.write_text(json.dumps(config), "utf-8")
    return path


def remove_logging_config() -> None:
    """Remove what ``prepare_environment`` wrote, if it was ours."""
    path = Path(os.environ.get("VLLM_LOGGING_CONFIG_PATH", ""))
    if path.parent.name.startswith("parley-inference-"):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
