"""A small LoRA adapter made on the spot: random weights for the attention of a model's layers."""

import json
import random
import struct
from pathlib import Path

from support.safetensors import write_floats

RANK = 8
BASE = "tests/base"


def make_adapter(model: Path, folder: Path, seed: int = 5) -> Path:
    """Write an adapter of the model in ``model``, as `peft` would; returns ``folder``.

    Its weights are random and large enough that answers differ from the model's own.
    """
    config = json.loads((model / "config.json").read_text("utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    outputs = {"q_proj": heads * width, "v_proj": config["num_key_value_heads"] * width}
    draw = random.Random(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, size in outputs.items():
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{module}.lora_A.weight"] = _drawn(draw, RANK, hidden)
            tensors[f"{module}.lora_B.weight"] = _drawn(draw, size, RANK)
    write_adapter(folder, r=RANK, target_modules=sorted(outputs))
    write_floats(folder / "adapter_model.safetensors", tensors)
    return folder


def write_adapter(folder: Path, **config: object) -> None:
    """Make an adapter's folder with its configuration, and no weights."""
    folder.mkdir(parents=True)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(described | config), "utf-8")


def _drawn(draw: random.Random, rows: int, columns: int) -> tuple[tuple[int, ...], bytes]:
    values = [draw.uniform(-0.1, 0.1) for _ in range(rows * columns)]
    return (rows, columns), struct.pack(f"<{len(values)}f", *values)
