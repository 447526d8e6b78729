"""Which type of numbers a model is computed with on a CPU."""

import json
import platform
from pathlib import Path
from typing import Any, Final

# On a CPU without AVX-512, SmolLM2-135M in float32 read a prompt 6 times as fast as in bfloat16,
# and drew 3 times the tokens/s of 16 answers (vLLM 0.32, torch 2.13). On one with AVX-512 and AMX
# vLLM answered in bfloat16 what nobody had asked, where transformers answered as in float32.
_AVOIDED: Final = ("bfloat16",)
_X86: Final = ("x86_64", "AMD64")
_FLOAT32: Final = "float32"


def cpu_dtype(folder: Path, *, beside: int, available: int | None) -> str:
    """`float32` where vLLM is slow or wrong in the model's own type on this CPU, else `auto`.

    Args:
        folder: the model's; what is not there is vLLM's to fetch, and to choose for.
        beside: bytes that are needed beside the weights.
        available: bytes of memory; None: nobody knows.
    """
    if platform.machine() not in _X86 or not _is_plain(folder):
        return "auto"
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    fits = available is None or 2 * weights + beside <= available
    return _FLOAT32 if fits else "auto"


def _is_plain(folder: Path) -> bool:
    """Whether its weights are of a type that is avoided, and not quantised."""
    try:
        config: Any = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or "quantization_config" in config:
        return False
    return config.get("dtype", config.get("torch_dtype")) in _AVOIDED
