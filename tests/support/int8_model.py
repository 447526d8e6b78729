"""Write a model with its linear layers at eight bits, in the layout of `compressed-tensors`.

Run by the inference environment, which has torch: `python int8_model.py MODEL FOLDER`. Weights are
rounded to the nearest by row; activations are rounded by token, as they come.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_EIGHT_BITS = {"num_bits": 8, "type": "int", "symmetric": True}
QUANTISATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_EIGHT_BITS, "strategy": "channel", "dynamic": False},
            "input_activations": {**_EIGHT_BITS, "strategy": "token", "dynamic": True},
        }
    },
}


def write(model: Path, folder: Path) -> None:
    """Write the model in `model` into `folder`, which is made; other files are links."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.name not in (WEIGHTS, CONFIG):
            (folder / path.name).symlink_to(path.resolve())
    tensors = {}
    for name, weight in load_file(model / WEIGHTS).items():
        if name.endswith("_proj.weight"):
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            tensors[name] = (weight.float() / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale.to(torch.bfloat16)
        else:
            tensors[name] = weight
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    described = json.loads((model / CONFIG).read_text("utf-8"))
    text = json.dumps(described | {"quantization_config": QUANTISATION})
    (folder / CONFIG).write_text(text, "utf-8")


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
