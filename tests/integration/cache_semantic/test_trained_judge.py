"""The trained judge upon the real embedding model: its numbers, and what it refuses."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer

from parley_cache.semantic.calibration import read_calibration
from parley_cache.semantic.embedding import ModelError, OnnxModel
from parley_cache.semantic.judge.encoder import PairEncoder
from parley_cache.semantic.judge.tensors import LAYERS, read_tensors
from parley_cache.semantic.judge.trained import KEPT_TEXTS, UNJUDGED, TrainedJudge
from parley_cache.semantic.judge.weights import read_trained
from parley_cache.semantic.verdict import SecondCheck
from support.embedding import embedding_model, embedding_model_folder

pytestmark = pytest.mark.integration
__all__ = ["embedding_model"]


@pytest.fixture(scope="module")
def judge(embedding_model: OnnxModel) -> TrainedJudge:
    return TrainedJudge(embedding_model_folder(), embedding_model.identity)


@pytest.mark.parametrize("text", ["Hi", "How do I reset my router?", "Ünïcode, 東京 & 🤖 " * 9])
def test_its_layers_are_those_of_the_embedding_model(embedding_model: OnnxModel, text: str) -> None:
    folder = embedding_model_folder()
    encoder = PairEncoder(read_tensors(folder / "model.onnx"), LAYERS, LAYERS)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()

    pooled = encoder.below([tokenizer.encode(text).ids])[0].mean(axis=0)

    assert pooled / np.linalg.norm(pooled) == pytest.approx(
        embedding_model.embed([text])[0], abs=1e-4
    )


def test_the_calibration_is_for_the_judge_and_the_model_that_are_shipped(
    embedding_model: OnnxModel, judge: TrainedJudge
) -> None:
    calibration = read_calibration()

    assert calibration.judge is not None
    assert calibration.judge.identity == judge.identity == read_trained().identity
    assert read_trained().model == embedding_model.identity


def test_a_judge_of_another_model_or_with_other_numbers_does_not_start(
    embedding_model: OnnxModel,
) -> None:
    trained, folder = read_trained(), embedding_model_folder()
    head = {"head2.b": trained.arrays["head2.b"] + 1}
    broken = dataclasses.replace(trained, arrays={**trained.arrays, **head})

    with pytest.raises(ModelError, match="trained upon"):
        TrainedJudge(folder, "another:1", trained)
    with pytest.raises(ModelError, match="where it gave"):
        TrainedJudge(folder, embedding_model.identity, broken)
    with pytest.raises(ModelError, match="cannot be read"):
        TrainedJudge(folder / "nowhere", embedding_model.identity, trained)


@pytest.mark.parametrize("text", ["", "?", "\ud800 lone", "🤖" * 40, "how " * 60, "\x00\x01"])
def test_any_short_text_gets_the_same_finite_logit_in_either_order(
    judge: TrainedJudge, text: str
) -> None:
    other = "How do I reset my router?"

    logit = judge.logit(text, other)

    assert UNJUDGED <= logit <= -UNJUDGED
    assert logit == judge.logit(other, text)


def test_a_pair_gets_the_same_logit_whether_its_texts_were_met_lately_or_long_ago(
    judge: TrainedJudge,
) -> None:
    pair = ("How do I reset my router?", "router factory reset how")

    first = judge.logit(*pair)
    again = judge.logit(*pair)
    many = judge.logits([("Hi", f"{number}") for number in range(KEPT_TEXTS)])
    later = judge.logit(*pair)

    assert len(many) == KEPT_TEXTS
    assert [again, later] == pytest.approx([first, first], abs=1e-3)


def test_it_keeps_the_texts_met_last_and_no_more(judge: TrainedJudge) -> None:
    for number in range(KEPT_TEXTS // 2):
        judge.logits([("How do I reset my router?", f"{number}"), ("Hi", f"{number} more")])

    assert len(judge.kept) == KEPT_TEXTS
    last = f"{KEPT_TEXTS // 2 - 1}"
    assert set(judge.kept[-4:]) == {"How do I reset my router?", "Hi", last, f"{last} more"}


def test_a_long_text_is_not_judged(judge: TrainedJudge) -> None:
    assert judge.logit("how " * 200, "how") == UNJUDGED
    assert judge.logit("how", "x" * 100_000) == UNJUDGED


def test_pairs_that_are_judged_together_get_what_each_gets_alone(
    embedding_model: OnnxModel, judge: TrainedJudge
) -> None:
    asked = "How do I reset my router?"
    others = ["How can I reset my router?", "x" * 100_000, "router", "Where do I buy a router?"]
    pairs = [(asked, other) for other in others]
    fresh = TrainedJudge(embedding_model_folder(), embedding_model.identity)

    alone = [judge.logit(*pair) for pair in pairs]

    assert fresh.logits(pairs) == pytest.approx(alone, abs=1e-3)
    assert alone[1] == UNJUDGED
    assert alone[0] > alone[2] > alone[1]
    assert alone[0] > alone[3] > alone[1]
    assert judge.logits([]) == []


def test_the_whole_verdict_serves_what_the_rules_alone_refuse(
    embedding_model: OnnxModel, judge: TrainedJudge
) -> None:
    pair = (
        "What is the difference between a plumber and a heating engineer?",
        "plumber vs heating engineer",
    )
    vectors = embedding_model.embed(pair)
    cosine = float(vectors[0] @ vectors[1])
    checks = [
        SecondCheck(read_calibration(), embedding_model.vocabulary, judge=asked)
        for asked in (None, judge)
    ]

    rules, whole = (check.compare(*pair, cosine) for check in checks)

    assert (rules.same, rules.reason) == (False, "other_words")
    assert whole.same
    trap = "plumber vs electrician"
    assert not checks[1].compare(pair[0], trap, cosine).same
