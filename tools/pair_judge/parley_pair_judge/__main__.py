"""`python -m parley_pair_judge`: trains, writes the weights, and says how they do on held pairs."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from parley_cache.semantic.embedding import ModelError, file_identity
from parley_cache.semantic.evaluation.figures import best, curve
from parley_cache.semantic.judge.tensors import LAYERS, read_tensors
from parley_cache.semantic.judge.weights import MOST_RANK, TrainedWeights, read_trained
from parley_pair_judge.examples import Variations, read_examples
from parley_pair_judge.export import restore, write
from parley_pair_judge.model import PairModel
from parley_pair_judge.train import Plan, Texts, logits_of, train

PROBES = (
    ("How do I reset my router?", "What is the way to get a router back to factory settings?"),
    ("How do I reset my router?", "How do I choose a router?"),
    ("Can a tenant end the lease early?", "Can a landlord end the lease early?"),
)


def parser() -> argparse.ArgumentParser:
    """Returns the command line's form."""
    line = argparse.ArgumentParser(prog="python -m parley_pair_judge", description=__doc__)
    line.add_argument("pairs", type=Path, nargs="+", metavar="PAIRS", help="from build_pairs.py")
    line.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the embedding's")
    line.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    line.add_argument("--start", type=Path, metavar="FOLDER", help="of weights to train on from")
    line.add_argument("--steps", type=int, default=2_400)
    line.add_argument("--decay", type=int, default=700, help="steps over which the rate falls")
    line.add_argument("--lower", type=int, default=3, help="layers that stay as they are")
    line.add_argument("--rank", type=int, default=128, help="of each matrix's change, as written")
    line.add_argument("--seed", type=int, default=7)
    line.add_argument("--threads", type=int, default=1)
    return line


def main() -> None:
    """Runs the training."""
    options = parser().parse_args()
    if not 0 <= options.lower < LAYERS:
        raise SystemExit(f"--lower must be at least 0 and below {LAYERS}.")
    if not 1 <= options.rank <= MOST_RANK:
        raise SystemExit(f"--rank must be 1 to {MOST_RANK}.")
    start = _read_start(options.start, options.lower) if options.start is not None else None
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    examples, held = read_examples(options.pairs)
    onnx, tokenizer = options.model / "model.onnx", options.model / "tokenizer.json"
    texts = Texts(Tokenizer.from_file(str(tokenizer)))
    model = PairModel(read_tensors(onnx), options.lower)
    if start is not None:
        restore(model, start.arrays)
    plan = Plan(options.steps, options.decay, seed=options.seed)
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    rng = random.Random(options.seed)
    variations = Variations(examples, vocabulary, model.word.numpy(), rng)
    train(model, examples, variations, texts, plan)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in options.pairs}
    provenance = {
        "pairs": digests,
        "trained_on": len(examples),
        "held": len(held),
        "start": start.identity if start is not None else "",
        "steps": options.steps,
        "decay": options.decay,
        "seed": options.seed,
        "torch": torch.__version__,
    }
    write(
        options.out,
        model,
        embedding=options.model,
        identity=file_identity(options.model),
        rank=options.rank,
        probes=PROBES,
        provenance=provenance,
    )
    if held:
        scores = torch.sigmoid(torch.tensor(logits_of(model, held, texts))).tolist()
        points = curve(scores, [example.same for example in held])
        for limit in (0.01, 0.05):
            point = best(points, limit)
            served = point.served.as_dict() if point else None
            sys.stdout.write(
                json.dumps({"held": len(held), "wrong": limit, "served": served}) + "\n"
            )


def _read_start(folder: Path, lower: int) -> TrainedWeights:
    """Returns the weights in `folder`; ends the program where they cannot be trained on."""
    try:
        start = read_trained(folder)
    except ModelError as error:
        raise SystemExit(str(error)) from error
    if start.lower != lower:
        raise SystemExit(f"The weights in {folder} leave {start.lower} layers alone, not {lower}.")
    return start


if __name__ == "__main__":
    main()
