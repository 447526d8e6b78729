"""LoRA adapters: folders as `peft` writes them, each served under a name as a model of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parley_inference.engine.revision import folder_revision
from parley_inference.engine.weights import BadWeights, Shape, read_shapes
from parley_kit.errors import StartupError

_PREFIX: Final = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter. ``revision`` tells its content."""

    name: str
    folder: Path
    rank: int
    revision: str


def read_adapters(
    folders: Mapping[str, Path], *, max_rank: int, base_model: str, shapes: Mapping[str, Shape]
) -> list[Adapter]:
    """Read what the adapters' folders hold, and judge it.

    ``base_model``: the name that each must give as its base; empty: any. ``shapes``: of the
    base's weights, as far as known. Raises StartupError, naming the adapter.
    """
    found = []
    for name, folder in folders.items():
        try:
            rank = _read_rank(folder, max_rank, base_model)
            _check_tensors(read_shapes(folder / "adapter_model.safetensors"), rank, shapes)
        except BadWeights as error:
            raise StartupError(f"the adapter {name} cannot be served: {error}") from error
        found.append(Adapter(name, folder, rank, folder_revision(folder)))
    return found


def _read_rank(folder: Path, max_rank: int, base_model: str) -> int:
    path = folder / "adapter_config.json"
    try:
        config: Any = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadWeights(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadWeights(f"{path} is not JSON") from error
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise BadWeights(f"{path} describes no LoRA adapter")
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise BadWeights(f"{path} gives no rank")
    if rank > max_rank:
        raise BadWeights(f"its rank is {rank}, and MAX_ADAPTER_RANK is {max_rank}")
    base = config.get("base_model_name_or_path")
    if base_model and base != base_model:
        raise BadWeights(f"its base is {base!r}, and ADAPTER_BASE_MODEL is {base_model!r}")
    return rank


def _check_tensors(tensors: Mapping[str, Shape], rank: int, base: Mapping[str, Shape]) -> None:
    """Each pair of A [rank, in] and B [out, rank] must fit the weight [out, in] that it changes."""
    modules = {name.removesuffix(_A) for name in tensors if name.endswith(_A)}
    if not modules:
        raise BadWeights("its file holds no LoRA weights")
    for module in sorted(modules):
        down, up = tensors[module + _A], tensors.get(module + _B)
        if up is None or len(down) != 2 or len(up) != 2 or down[0] != up[1] or up[1] != rank:
            raise BadWeights(f"the weights of {module} do not have its rank, {rank}")
        wanted = base.get(f"{module.removeprefix(_PREFIX)}.weight")
        if wanted is not None and len(wanted) == 2 and wanted != (up[0], down[1]):
            raise BadWeights(
                f"it was made for another model: {module} is {up[0]} by {down[1]}, and the "
                f"model's is {wanted[0]} by {wanted[1]}"
            )
