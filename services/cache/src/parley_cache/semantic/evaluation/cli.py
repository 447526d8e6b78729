"""The command line of the evaluation."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from parley_cache.semantic.calibration import CalibrationError, read_calibration
from parley_cache.semantic.embedding import Model, ModelError, OnnxModel, check_model
from parley_cache.semantic.evaluation.judging import calibrate, judge
from parley_cache.semantic.evaluation.pairs import PairsError, read_pairs
from parley_cache.semantic.evaluation.report import as_svg, as_text, figures
from parley_cache.semantic.evaluation.weighing import weigh
from parley_cache.semantic.judge.trained import TrainedJudge
from parley_cache.semantic.judge.weights import read_trained

MODEL_VARIABLE = "PARLEY_CACHE_EMBEDDING_MODEL"


def parser() -> argparse.ArgumentParser:
    """Returns the command line's form."""
    line = argparse.ArgumentParser(
        prog="python -m parley_cache.evaluate",
        description="Served share against wrong share per hit, on labelled pairs of questions.",
        epilog="PAIRS is TSV or JSON lines: text_a, text_b, label (1: one answer may serve "
        "both), and, if you like, category and split.",
    )
    line.add_argument("pairs", type=Path, metavar="PAIRS")
    line.add_argument(
        "--model",
        type=Path,
        default=os.environ.get(MODEL_VARIABLE) or None,
        metavar="FOLDER",
        help=f"folder of model.onnx and tokenizer.json (default: {MODEL_VARIABLE})",
    )
    line.add_argument("--calibration", type=Path, metavar="FILE", help="instead of the shipped one")
    line.add_argument("--split", default="", help="use only the pairs of this split")
    line.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="fit to the pairs, write FILE, and judge by it",
    )
    line.add_argument(
        "--weigh",
        type=Path,
        metavar="FILE",
        help="fit the trained judge's part to pairs that it has not seen, write FILE, judge by it",
    )
    line.add_argument("--rules-alone", action="store_true", help="ask no trained judge")
    line.add_argument(
        "--most-wrong",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="wrong per hit that a calibration may have (default 0.01)",
    )
    line.add_argument("--json", action="store_true", help="print the figures as JSON")
    line.add_argument("--plot", type=Path, metavar="FILE", help="write the plot as SVG")
    line.add_argument("--show-wrong", action="store_true", help="list what is served wrongly")
    return line


def main(arguments: Sequence[str] | None = None, model: Model | None = None) -> int:
    """Runs the evaluation. Returns 0, or 2 where the input cannot be used."""
    options = parser().parse_args(arguments)
    try:
        return _run(options, model)
    except (PairsError, CalibrationError, ModelError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _run(options: argparse.Namespace, model: Model | None) -> int:
    pairs = read_pairs(options.pairs).of_split(options.split)
    if not 0 <= options.most_wrong < 1:
        raise ValueError("--most-wrong must be at least 0 and below 1.")
    if model is None:
        if options.model is None:
            raise ModelError(f"Name the embedding model's folder: --model or {MODEL_VARIABLE}.")
        model = OnnxModel(options.model)
        check_model(model)
    trained = _trained(options, model)
    if options.calibrate is not None:
        calibration = calibrate(model, pairs, options.split, options.most_wrong)
        calibration.write(options.calibrate)
    else:
        calibration = read_calibration(options.calibration)
        if calibration.model != model.identity:
            sys.stderr.write(
                f"The calibration is of {calibration.model}, the model is {model.identity}: "
                "the figures are not those of a calibrated cache.\n"
            )
    if options.weigh is not None:
        if trained is None:
            raise ModelError("There is no trained judge to be weighed for this model.")
        calibration = weigh(
            model,
            trained,
            pairs,
            calibration,
            split=options.split,
            most_wrong=options.most_wrong,
        )
        calibration.write(options.weigh)
    if trained is None:
        calibration = replace(calibration, judge=None)
    judged = judge(model, pairs, calibration, trained if calibration.judge else None)
    found = figures(judged, calibration, options.split)
    sys.stdout.write(
        json.dumps(found, indent=2, ensure_ascii=False) if options.json else as_text(found)
    )
    sys.stdout.write("\n")
    if options.plot is not None:
        options.plot.write_text(as_svg(found), encoding="utf-8")
    if options.show_wrong:
        for place, verdict in judged.wrong:
            pair = pairs.pairs[place]
            sys.stdout.write(
                f"{pair.category}\t{verdict.score:.3f}\t{pair.text_a}\t{pair.text_b}\n"
            )
    return 0


def _trained(options: argparse.Namespace, model: Model) -> TrainedJudge | None:
    """Returns the judge that is shipped, where it was trained upon this model."""
    if options.model is None or options.rules_alone:
        return None
    found = read_trained()
    if found.model != model.identity:
        return None
    return TrainedJudge(options.model, model.identity, found)
