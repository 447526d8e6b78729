"""The contract of the cross-encoder's adapter; no model's quality is tested here."""

from pathlib import Path

import numpy as np
import pytest

from parley_cache.semantic.cross_encoder import OnnxCrossEncoder, estimates
from parley_cache.semantic.embedding import ModelError


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.0, 100.0, -100.0], [0.5, 1.0, 0.0]),
        ([[0.0], [100.0], [-100.0]], [0.5, 1.0, 0.0]),
        ([[1.0, 1.0], [0.0, 100.0], [100.0, 0.0]], [0.5, 1.0, 0.0]),
    ],
)
def test_one_or_two_logits_a_pair_become_estimates(
    logits: list[object], expected: list[float]
) -> None:
    assert estimates(np.array(logits), 3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("logits", [np.zeros((3, 3)), np.zeros(2), np.full(3, np.nan)])
def test_logits_of_another_shape_or_no_numbers_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ModelError):
        estimates(logits, 3)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="missing"):
        OnnxCrossEncoder(tmp_path)
