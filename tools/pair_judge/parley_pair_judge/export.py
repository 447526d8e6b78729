"""Writes what was trained, in the form that the cache reads."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parley_cache.semantic.judge.tensors import LAYERS
from parley_cache.semantic.judge.weights import (
    FORMAT,
    SHIPPED,
    Probe,
    TrainedWeights,
    expected_shapes,
)
from parley_pair_judge.model import PairModel

_PLACES = {"head1.w": "head1.weight", "head1.b": "head1.bias"} | {
    "head2.w": "head2.weight",
    "head2.b": "head2.bias",
}


def arrays_of(model: PairModel) -> dict[str, np.ndarray]:
    """Returns the trained arrays by the names of the cache, as half precision."""
    state = model.state_dict()
    lower = len(model.lower)
    rank = state["upper.0.query_thin"].shape[1]
    found: dict[str, np.ndarray] = {}
    for name, shape in expected_shapes(lower, rank).items():
        layer, _, rest = name.partition(".")
        if layer.isdigit():
            place = f"upper.{int(layer) - lower}.{rest.replace('.', '_')}"
        else:
            place = _PLACES.get(name, name)
        value = state[place].numpy()
        value = value.T if name in ("head1.w", "head2.w") else value
        if value.shape != shape:
            raise ValueError(f"{name} has the shape {value.shape}, not {shape}.")
        found[name] = value.astype(np.float16)
    return found


def write(
    folder: Path,
    model: PairModel,
    *,
    embedding: Path,
    identity: str,
    probes: Sequence[tuple[str, str]],
    provenance: Mapping[str, Any],
) -> None:
    """Writes both files; the probes' logits are those of the cache's own encoder."""
    from parley_cache.semantic.judge.trained import TrainedJudge

    arrays = arrays_of(model)
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
