"""Writes what was trained in the form that the cache reads, and reads it to train on.

Of each matrix the change is kept as the product of two thin ones that is nearest to it
(by singular values): a quarter of the bytes at rank 64.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parley_cache.semantic.judge.tensors import LAYERS, read_tensors
from parley_cache.semantic.judge.weights import (
    FORMAT,
    MATRICES,
    SHIPPED,
    Probe,
    TrainedWeights,
    expected_shapes,
)
from parley_pair_judge.model import PairModel, tensor

_PLACES = {
    "head1.w": "head1.weight",
    "head1.b": "head1.bias",
    "head2.w": "head2.weight",
    "head2.b": "head2.bias",
}
_TURNED = ("head1.w", "head2.w")


def arrays_of(model: PairModel, embedding: Mapping[str, Any], rank: int) -> dict[str, np.ndarray]:
    """Returns the trained arrays by the names of the cache, as half precision.

    `embedding`: the weights that `model` began with; a matrix's change is cut to `rank`.
    """
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    lower = len(model.lower)
    found: dict[str, np.ndarray] = {}
    for layer in range(lower, LAYERS):
        for matrix in MATRICES:
            whole = state[f"upper.{layer - lower}.{matrix}_w"]
            name = f"{layer}.{matrix}"
            thin, wide = _cut(whole - np.asarray(embedding[f"{name}.w"]), rank)
            found[f"{name}.thin"], found[f"{name}.wide"] = thin, wide
    for name in expected_shapes(lower, rank):
        if name not in found:
            value = state[_place(name, lower)]
            found[name] = value.T if name in _TURNED else value
    return {name: value.astype(np.float16) for name, value in found.items()}


@torch.no_grad()
def restore(model: PairModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives a model that is upon the embedding model alone what was trained before."""
    state, lower = model.state_dict(), len(model.lower)
    for name, value in arrays.items():
        matrix, _, side = name.rpartition(".")
        if side == "thin":
            change = tensor(value @ arrays[f"{matrix}.wide"])
            state[_place(f"{matrix}.w", lower)].add_(change)
        elif side != "wide":
            state[_place(name, lower)].copy_(tensor(value.T if name in _TURNED else value))


def _place(name: str, lower: int) -> str:
    """Returns the model's name of what the cache calls `name`."""
    layer, _, rest = name.partition(".")
    if layer.isdigit():
        return f"upper.{int(layer) - lower}.{rest.replace('.', '_')}"
    return _PLACES.get(name, name)


def _cut(change: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two matrices, (height, rank) and (rank, width), whose product is near `change`."""
    left, sizes, right = np.linalg.svd(change, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def write(
    folder: Path,
    model: PairModel,
    *,
    embedding: Path,
    identity: str,
    rank: int,
    probes: Sequence[tuple[str, str]],
    provenance: Mapping[str, Any],
) -> None:
    """Writes both files; the probes' logits are those of the cache's own encoder."""
    from parley_cache.semantic.judge.trained import TrainedJudge

    arrays = arrays_of(model, read_tensors(embedding / "model.onnx"), rank)
    data = packed(arrays)
    digest = hashlib.sha256(data).hexdigest()
    lower = len(model.lower)
    read = {name: value.astype(np.float32) for name, value in arrays.items()}
    trained = TrainedWeights(identity, digest, lower, (), provenance, read)
    judge = TrainedJudge(embedding, identity, trained)
    tried = [Probe(a, b, round(judge.logit(a, b), 4)) for a, b in probes]
    body = {
        "format": FORMAT,
        "model": identity,
        "sha256": digest,
        "layers": LAYERS,
        "lower": lower,
        "probes": [[probe.first, probe.second, probe.logit] for probe in tried],
        "provenance": dict(provenance),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{SHIPPED}.npz").write_bytes(data)
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{SHIPPED}.json").write_text(text, encoding="utf-8")


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns an .npz whose bytes depend on the arrays alone: no date, names in order."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(arrays):
            one = io.BytesIO()
            np.lib.format.write_array(one, np.asarray(arrays[name], order="C"), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), one.getvalue(), zipfile.ZIP_DEFLATED)
    return made.getvalue()
