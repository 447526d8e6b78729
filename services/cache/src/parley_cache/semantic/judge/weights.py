"""What training changed in the embedding model's weights, and where it came from.

Two files lie in `shipped/`. `NAME.npz` holds, as half precision, a product of two thin
matrices for each weight matrix of the trained layers (`3.query.thin`, `3.query.wide`),
their biases and norms, and the head. `NAME.json` says of which embedding model the rest
must be, the first file's SHA-256, which logits it must give, and its provenance.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from parley_cache.semantic.embedding import ModelError
from parley_cache.semantic.judge.encoder import HEADS, Floats, PairEncoder
from parley_cache.semantic.judge.tensors import LAYERS, read_tensors

FORMAT = 1
SHIPPED = "minilm-l6-v2-int8"
WIDTH, INNER, PROBES, HIDDEN = 384, 1536, 128, 128
MATRICES = {
    "query": (WIDTH, WIDTH),
    "key": (WIDTH, WIDTH),
    "value": (WIDTH, WIDTH),
    "out": (WIDTH, WIDTH),
    "up": (WIDTH, INNER),
    "down": (INNER, WIDTH),
}
HEAD = {
    "gap": (WIDTH, WIDTH),
    "probe": (WIDTH, PROBES),
    "sharpness": (),
    "head1.w": (4 * WIDTH + 2 * PROBES, HIDDEN),
    "head1.b": (HIDDEN,),
    "head2.w": (HIDDEN, 1),
    "head2.b": (1,),
}
MOST_RANK = 256


@dataclass(frozen=True, slots=True)
class Probe:
    """Two questions, and the logit that the judge gave them when it was made."""

    first: str
    second: str
    logit: float


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """NAME.json, and the arrays of NAME.npz as float32.

    `model`: identity of the embedding model that they change. `lower`: its first layers,
    which training left alone.
    """

    model: str
    digest: str
    lower: int
    probes: tuple[Probe, ...]
    provenance: Mapping[str, Any]
    arrays: Mapping[str, Floats]

    @property
    def identity(self) -> str:
        """Says which judge this is; a calibration is made for one."""
        return f"pairs-{SHIPPED}:{self.digest[:16]}"

    def encoder(self, model: Path) -> PairEncoder:
        """Returns the encoder upon the ONNX file of the embedding model. Raises ModelError."""
        weights = read_tensors(model)
        for layer in range(self.lower, LAYERS):
            for matrix, shape in MATRICES.items():
                name = f"{layer}.{matrix}"
                if weights[f"{name}.w"].shape != shape:
                    raise ModelError(f"{name} of the embedding model is of another shape.")
                change = self.arrays[f"{name}.thin"] @ self.arrays[f"{name}.wide"]
                weights[f"{name}.w"] = weights[f"{name}.w"] + change
        weights.update({n: v for n, v in self.arrays.items() if not n.endswith((".thin", ".wide"))})
        return PairEncoder(weights, self.lower, LAYERS)


def read_trained(folder: Path | None = None) -> TrainedWeights:
    """Returns the weights in `folder`, or those that are shipped.

    Raises ModelError where a file is missing, broken, of another form, or not the one
    that NAME.json was written for.
    """
    place = folder if folder is not None else files("parley_cache.semantic.judge") / "shipped"
    try:
        body = json.loads((place / f"{SHIPPED}.json").read_text(encoding="utf-8"))
        data = (place / f"{SHIPPED}.npz").read_bytes()
        return _parsed(body, data)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"The trained judge cannot be read: {error}") from error


def _parsed(body: Any, data: bytes) -> TrainedWeights:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError(f"its description is not of format {FORMAT}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != body["sha256"]:
        raise ValueError("its weights are not those that its description is of")
    lower = int(body["lower"])
    if not 0 <= lower < LAYERS:
        raise ValueError(f"it cannot leave {lower} layers alone")
    probes = tuple(Probe(str(p[0]), str(p[1]), float(p[2])) for p in body["probes"])
    if len(probes) < 2 or not all(math.isfinite(probe.logit) for probe in probes):
        raise ValueError("it has no two pairs to be tried with")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        arrays = {name: np.asarray(found[name], dtype=np.float32) for name in found.files}
    _check_shapes(arrays, lower)
    return TrainedWeights(
        str(body["model"]), digest, lower, probes, dict(body["provenance"]), arrays
    )


def expected_shapes(lower: int, rank: int) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every array."""
    shapes: dict[str, tuple[int, ...]] = dict(HEAD)
    for layer in range(lower, LAYERS):
        for matrix, (height, width) in MATRICES.items():
            shapes[f"{layer}.{matrix}.thin"] = (height, rank)
            shapes[f"{layer}.{matrix}.wide"] = (rank, width)
            shapes[f"{layer}.{matrix}.b"] = (width,)
        for norm in ("norm1", "norm2"):
            shapes[f"{layer}.{norm}.w"] = shapes[f"{layer}.{norm}.b"] = (WIDTH,)
        shapes[f"{layer}.across"] = (HEADS,)
        shapes[f"{layer}.mark"] = (WIDTH,)
    return shapes


def _check_shapes(arrays: Mapping[str, Floats], lower: int) -> None:
    rank = arrays[f"{lower}.query.thin"].shape[-1]
    if not 1 <= rank <= MOST_RANK:
        raise ValueError(f"its rank is {rank}")
    shapes = expected_shapes(lower, rank)
    if set(arrays) != set(shapes):
        raise ValueError(f"it lacks or adds {sorted(set(arrays) ^ set(shapes))[:3]}")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds what is no number")
