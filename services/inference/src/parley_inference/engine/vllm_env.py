"""What vLLM reads from the environment; to be set before it is imported for the first time.

A variable that is set already stands: an operator's word goes before ours.
"""

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from parley_inference.engine.start_notes import StartNotes

_PREFIX: Final = "parley-inference-"


def prepare_environment(
    *, model: str, kv_cache_gib: int, threads: str, log_level: str, log_format: str
) -> StartNotes:
    """Set vLLM's variables for this process and the engine's own, which inherit them.

    Returns what the engine's processes will say while they start. No usage statistics are sent.
    A model that is a folder needs no network, so none is tried.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    notes = StartNotes(folder / "notes")
    notes.folder.mkdir()
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib),
        "VLLM_LOGGING_CONFIG_PATH": str(_logging_config(folder, log_level, log_format)),
        # Names the spans of the engine's own processes.
        "OTEL_SERVICE_NAME": "inference-engine",
        # Of the caches of compiled models, the one that can be read again on CPU: with vLLM 0.32
        # and torch 2.13 the other one is compiled anew at every start.
        "VLLM_USE_AOT_COMPILE": "0",
        # As vLLM's own server has it: what serves gRPC has threads, and is not to be forked.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # The tokenizer's threads and the engine's forks do not go together.
        "TOKENIZERS_PARALLELISM": "false",
    }
    if threads:
        values["VLLM_CPU_OMP_THREADS_BIND"] = threads
    if Path(model).is_dir():
        values |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    return notes


def _logging_config(folder: Path, level: str, fmt: str) -> Path:
    """A file that gives the engine's processes the same log lines as ours, and has them noted."""
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
                "level": level.upper(),
            },
            "notes": {
                "class": "parley_inference.engine.start_notes.NoteHandler",
                "folder": str(folder / "notes"),
            },
        },
        "loggers": {
            "vllm": {
                "handlers": ["stdout", "notes"],
                "level": min(level.upper(), "INFO", key=logging.getLevelNamesMapping().__getitem__),
                "propagate": False,
            }
        },
    }
    # Removed by the process that made it, when the engine has stopped.
    path = folder / "logging.json"
    path.write_text(json.dumps(config), "utf-8")
    return path


def remove_logging_config() -> None:
    """Remove what ``prepare_environment`` wrote, if it was ours."""
    path = Path(os.environ.get("VLLM_LOGGING_CONFIG_PATH", ""))
    if path.parent.name.startswith(_PREFIX):
        shutil.rmtree(path.parent, ignore_errors=True)
