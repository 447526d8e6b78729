"""The trained judge's parts, without the model: arithmetic, symmetry, its place in the verdict."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parley_cache.semantic.calibration import (
    Calibration,
    CalibrationError,
    JudgeCalibration,
    read_calibration,
)
from parley_cache.semantic.embedding import ModelError
from parley_cache.semantic.evaluation.pairs import Pair, PairSet
from parley_cache.semantic.evaluation.weighing import weigh
from parley_cache.semantic.judge.encoder import HEADS, PairEncoder, gelu, softmax
from parley_cache.semantic.judge.tensors import read_tensors
from parley_cache.semantic.judge.weights import SHIPPED, read_trained
from parley_cache.semantic.verdict import MOST_JUDGED, Candidate, SecondCheck
from support.embedding import WordModel

WIDTH = 2 * HEADS
ROUTER = "How do I reset my router?"
REWORDED = "What is the procedure for restoring a router to its factory state?"


def test_gelu_is_that_of_the_error_function() -> None:
    x = np.linspace(-6, 6, 401, dtype=np.float32)

    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]

    assert gelu(x) == pytest.approx(exact, abs=2e-6)


def test_softmax_gives_shares_whatever_the_size() -> None:
    shares = softmax(np.array([[1e4, 0.0, -1e4], [1.0, 1.0, 1.0]], dtype=np.float32))

    assert shares.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert shares[0].tolist() == [1.0, 0.0, 0.0]


def random_weights(seed: int, lower: int, layers: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / 4).astype(np.float32)

    weights = {
        "word": rng.integers(-99, 99, (50, WIDTH)).astype(np.int8),
        "word.scale": np.full((50, 1), 0.01, dtype=np.float32),
        "position": some(20, WIDTH),
        "norm.w": some(WIDTH),
        "norm.b": some(WIDTH),
        "gap": some(WIDTH, WIDTH),
        "probe": some(WIDTH, 5),
        "sharpness": np.float32(3.0),
        "head1.w": some(4 * WIDTH + 10, 7),
        "head1.b": some(7),
        "head2.w": some(7, 1),
        "head2.b": some(1),
    }
    for layer in range(layers):
        for name, shape in {
            "query": (WIDTH, WIDTH),
            "key": (WIDTH, WIDTH),
            "value": (WIDTH, WIDTH),
            "out": (WIDTH, WIDTH),
            "up": (WIDTH, 9),
            "down": (9, WIDTH),
        }.items():
            weights[f"{layer}.{name}.w"] = some(*shape)
            weights[f"{layer}.{name}.b"] = some(shape[1])
        for name in ("norm1", "norm2"):
            weights[f"{layer}.{name}.w"] = some(WIDTH)
            weights[f"{layer}.{name}.b"] = some(WIDTH)
        if layer >= lower:
            weights[f"{layer}.across"] = some(HEADS)
            weights[f"{layer}.mark"] = some(WIDTH)
    return weights


def test_the_encoder_gives_both_orders_the_same_logit_and_other_texts_another() -> None:
    encoder = PairEncoder(random_weights(1, 1, 3), 1, 3)
    a, b, c = encoder.below([[1, 7, 9, 2], [1, 7, 8, 11, 12, 2], [1, 30, 2]])

    first, turned, other = encoder.logits([(a, b), (b, a), (a, c)])

    assert first == pytest.approx(turned, abs=1e-5)
    assert abs(first - other) > 1e-3


def test_a_pair_among_others_has_the_logit_that_it_has_alone() -> None:
    encoder = PairEncoder(random_weights(2, 1, 3), 1, 3)
    ids = [[1, 7, 9, 2], [1, 7, 8, 11, 12, 2], [1, 30, 2]]
    texts = encoder.below(ids)
    pairs = [(texts[0], texts[1]), (texts[2], texts[1]), (texts[0], texts[2])]

    for text, own in zip(texts, ids, strict=True):
        assert text == pytest.approx(encoder.below([own])[0], abs=1e-5)
    alone = [logit for pair in pairs for logit in encoder.logits([pair])]

    assert encoder.logits(pairs) == pytest.approx(alone, abs=1e-5)
    assert len({round(logit, 3) for logit in alone}) == 3


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40, b"\x3a\x05abc", b"\x3a\x02\x0a\x00"])
def test_a_file_that_is_no_such_model_is_told(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(data)

    with pytest.raises(ModelError, match=r"model\.onnx cannot be read"):
        read_tensors(file)


def shipped_copy(folder: Path) -> Path:
    import parley_cache.semantic.judge.weights as home

    place = Path(home.__file__).parent / "shipped"
    for name in (f"{SHIPPED}.json", f"{SHIPPED}.npz"):
        (folder / name).write_bytes((place / name).read_bytes())
    return folder


def test_the_shipped_weights_can_be_read_from_a_folder_too(tmp_path: Path) -> None:
    assert read_trained(shipped_copy(tmp_path)).identity == read_trained().identity


@pytest.mark.parametrize("at", [40, 100_000, -30])
def test_weights_with_a_changed_byte_are_refused(tmp_path: Path, at: int) -> None:
    file = shipped_copy(tmp_path) / f"{SHIPPED}.npz"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)

    with pytest.raises(ModelError, match="not those that its description is of"):
        read_trained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"lower": 6},
        {"lower": 2},
        {"probes": []},
        {"probes": [["a", "b", "x"], ["a", "b", 1]]},
        {"probes": [["a", "b", math.nan], ["a", "b", 1]]},
        {"provenance": None},
        {"sha256": "0"},
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, change: Mapping[str, object]
) -> None:
    file = shipped_copy(tmp_path) / f"{SHIPPED}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(change)))

    with pytest.raises(ModelError, match="trained judge cannot be read"):
        read_trained(tmp_path)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="trained judge cannot be read"):
        read_trained(tmp_path)


class Saying:
    """A judge that says what it is told to; notes what it was asked."""

    identity = "pairs:1"

    def __init__(self, logit: float) -> None:
        self._logit = logit
        self.asked: list[list[tuple[str, str]]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked.append(list(pairs))
        return [self._logit for _ in pairs]


def weighed(reasons: Mapping[str, float], threshold: float = 0.9) -> Calibration:
    judge = JudgeCalibration("pairs:1", 1.0, reasons, 0.0, threshold, {})
    return replace(read_calibration(), judge=judge)


@pytest.mark.parametrize(
    ("logit", "weight", "served"),
    [(3.0, 0.0, True), (2.0, 0.0, False), (3.0, -1.0, False), (4.0, -1.0, True), (math.nan, 0, 0)],
)
def test_the_logit_is_weighed_against_the_reasons(logit: float, weight: float, served: int) -> None:
    check = SecondCheck(weighed({"other_words": weight}), judge=Saying(logit))

    verdict = check.compare(ROUTER, REWORDED, 0.9)

    assert verdict.same is bool(served)
    assert verdict.reason == ("same_meaning" if served else "other_words")
    assert verdict.reasons == ("other_words",)
    assert verdict == check.compare(REWORDED, ROUTER, 0.9)


def test_where_the_rules_agree_less_will_do() -> None:
    found = weighed({"other_words": 0.0})
    assert found.judge is not None
    found = replace(found, judge=replace(found.judge, disputed=-2.0))
    check = SecondCheck(found, judge=Saying(3.0))

    assert check.compare(ROUTER, "How can I reset my router?", 0.9).same
    assert not check.compare(ROUTER, REWORDED, 0.9).same
    assert SecondCheck(found, judge=Saying(5.0)).compare(ROUTER, REWORDED, 0.9).same


def test_pairs_below_the_judges_own_floor_are_not_put_to_it() -> None:
    judge, found = Saying(30.0), weighed({"other_words": 0.0})
    assert found.judge is not None
    found = replace(found, judge=replace(found.judge, cosine_floor=0.7))
    check = SecondCheck(found, judge=judge)

    assert check.cosine_floor == 0.7
    assert check.compare(ROUTER, REWORDED, 0.69).reason == "not_similar"
    assert judge.asked == []
    assert check.compare(ROUTER, REWORDED, 0.71).same
    # Without the judge its floor is not asked for, and a lower one is the rules' own.
    assert SecondCheck(found).cosine_floor == found.cosine_floor
    lower = replace(found, judge=replace(found.judge, cosine_floor=0.1))
    assert SecondCheck(lower, judge=judge).cosine_floor == found.cosine_floor


def test_a_reason_without_a_weight_keeps_apart_unasked() -> None:
    judge = Saying(30.0)
    check = SecondCheck(weighed({"other_words": 0.0}), judge=judge)

    assert not check.compare("Who is the mayor of Paris?", "Who is the mayor of Rome?", 0.99).same
    assert judge.asked == []


def test_a_pair_without_a_reason_that_the_judge_refuses_says_so() -> None:
    check = SecondCheck(weighed({}), judge=Saying(-3.0))

    assert check.compare(ROUTER, "How can I reset my router?", 0.9).reason == "trained_judge"


@pytest.mark.parametrize(
    ("a", "b", "cosine"),
    [
        (ROUTER, "how do I reset my router", 0.99),
        (ROUTER, REWORDED, 0.1),
        ("Wie ändere ich mein Passwort?", "wie ändere ich mein Passwort", 0.99),
        ("Wie ändere ich mein Passwort?", "Wie ändere ich meine Adresse?", 0.9),
        ("Comment changer mon mot de passe ?", "Wie ändere ich mein Passwort?", 0.9),
        (ROUTER, ROUTER + " Tell me more." * 400, 0.9),
    ],
)
def test_the_same_words_strangers_other_languages_and_long_texts_are_not_put_to_it(
    a: str, b: str, cosine: float
) -> None:
    judge = Saying(-30.0)

    found = SecondCheck(weighed({}), judge=judge).compare(a, b, cosine)

    assert judge.asked == []
    assert found == SecondCheck(read_calibration()).compare(a, b, cosine)


def test_in_a_language_that_it_does_not_know_other_words_are_not_the_same() -> None:
    judge = Saying(30.0)
    pair = ("Wie ändere ich mein Passwort?", "Wie kann ich mein Passwort ändern?")

    found = SecondCheck(weighed({}), judge=judge).compare(*pair, 0.95)

    assert SecondCheck(read_calibration()).compare(*pair, 0.95).same
    assert (found.same, found.reason) == (False, "language_not_judged")
    assert judge.asked == []


def nominated(count: int) -> list[Candidate]:
    return [
        Candidate(str(n), f"{REWORDED} {'Thanks! ' * n}", (1 - n / 50, 0.0)) for n in range(count)
    ]


def test_a_look_up_asks_it_once_about_the_nearest_few() -> None:
    judge = Saying(-5.0)
    check = SecondCheck(weighed({"other_words": 0.0}), judge=judge)
    nominees = nominated(6)

    chosen, verdict = check.choose(ROUTER, (1.0, 0.0), nominees[::-1])

    assert chosen is None
    assert verdict is not None
    assert verdict.cosine == 1.0
    nearest = [one.question for one in nominees[:MOST_JUDGED]]
    assert judge.asked == [[tuple(sorted((ROUTER, text))) for text in nearest]]


def test_a_look_up_takes_the_nearest_that_it_agrees_to() -> None:
    check = SecondCheck(weighed({"other_words": 0.0}), judge=Saying(5.0))
    nominees = nominated(6)

    chosen, verdict = check.choose(ROUTER, (1.0, 0.0), nominees[::-1])

    assert chosen is nominees[0]
    assert verdict is not None
    assert verdict.same


class Liking:
    """A judge that agrees to pairs with one of two texts."""

    identity = "pairs:1"

    def __init__(self, text: str) -> None:
        self._text = text

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [5.0 if self._text in pair else -5.0 for pair in pairs]


def test_a_look_up_takes_the_one_that_it_agrees_to_whatever_stands_between() -> None:
    nominees = nominated(3)
    check = SecondCheck(weighed({"other_words": 0.0}), judge=Liking(nominees[1].question))
    ruled = Candidate("ruled", "Wie setze ich den Router zurück?", (0.99, 0.0))

    chosen, verdict = check.choose(ROUTER, (1.0, 0.0), [ruled, *nominees[::-1]])

    assert chosen is nominees[1]
    assert verdict is not None
    assert verdict.cosine == nominees[1].vector[0]


def test_a_look_up_asks_it_of_none_behind_one_that_the_rules_agree_to() -> None:
    judge = Saying(-5.0)
    check = SecondCheck(weighed({"other_words": 0.0}), judge=judge)
    far = nominated(3)
    own = Candidate("own", "how do I reset my router", (0.99, 0.0))

    chosen, verdict = check.choose(ROUTER, (1.0, 0.0), [*far[1:], own, far[0]])

    assert chosen is own
    assert verdict is not None
    assert verdict.reason == "same_words"
    assert judge.asked == [[tuple(sorted((ROUTER, far[0].question)))]]


@pytest.mark.parametrize("calibration", [read_calibration(), weighed({})])
def test_a_judge_that_the_calibration_is_not_for_is_refused(calibration: Calibration) -> None:
    judge = Saying(1.0)
    judge.identity = "pairs:2"

    with pytest.raises(CalibrationError, match="pairs:2"):
        SecondCheck(calibration, judge=judge)


def test_a_calibration_keeps_its_judge(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    weighed({"other_words": -0.5}).write(file)

    assert read_calibration(file).judge == weighed({"other_words": -0.5}).judge


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"logit": "much"},
        {"bias": math.inf},
        {"reasons": [1]},
        {"cosine_floor": math.nan},
    ],
)
def test_a_calibration_whose_judge_is_misstated_is_refused(
    tmp_path: Path, change: Mapping[str, object]
) -> None:
    file = tmp_path / "calibration.json"
    weighed({"other_words": -0.5}).write(file)
    body = json.loads(file.read_text())
    file.write_text(json.dumps(body | {"judge": body["judge"] | dict(change)}))

    with pytest.raises(CalibrationError):
        read_calibration(file)


class Labels:
    """A judge that knows the labels of most pairs, and takes some traps for the same."""

    identity = "pairs:3"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._same = {frozenset((p.text_a, p.text_b)): p.same for p in pairs}
        self._order = {frozenset((p.text_a, p.text_b)): n for n, p in enumerate(pairs)}

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [self._logit(frozenset(pair)) for pair in pairs]

    def _logit(self, pair: frozenset[str]) -> float:
        sure = 1.0 + self._order[pair] % 7
        if not self._same[pair] and self._order[pair] % 10 == 1:
            return sure / 3
        return sure if self._same[pair] else -sure


def test_weighing_finds_the_lowest_threshold_that_is_right_often_enough() -> None:
    model = WordModel()
    pairs = tuple(
        Pair(f"How do I fix item{n}?", f"How can I fix item{n}?", n % 2 == 0, "", "")
        for n in range(400)
    )
    blank = replace(read_calibration(), model=model.identity, cosine_floor=0.0)
    labels = Labels(pairs)
    found = [
        weigh(model, labels, PairSet("made", "0", pairs), blank, split="", most_wrong=limit)
        for limit in (0.02, 0.2)
    ]
    strict, loose = (calibration.judge for calibration in found)

    assert strict is not None
    assert loose is not None
    assert strict.logit > 0
    assert all(weight <= 0 for weight in strict.reasons.values())
    assert loose.threshold < strict.threshold
    assert strict.provenance["wrong_per_hit"] <= 0.02 < loose.provenance["wrong_per_hit"]


def test_the_judges_floor_lies_just_below_what_is_served() -> None:
    model = WordModel()
    alike = [
        Pair(f"How do I mend part{n}?", f"How do I mend that old part{n}?", True, "", "")
        for n in range(100)
    ]
    traps = [
        Pair(f"How do I mend part{n}?", f"How do I sell part{n}?", False, "", "")
        for n in range(100)
    ]
    pairs = (*alike, *traps)

    class Sure(Labels):
        def _logit(self, pair: frozenset[str]) -> float:
            return 3.0 if self._same[pair] else -3.0

    blank = replace(read_calibration(), model=model.identity, cosine_floor=0.0)
    found = weigh(
        model, Sure(pairs), PairSet("made", "0", pairs), blank, split="", most_wrong=0.01
    ).judge

    assert found is not None
    vectors = (model.embed([pair.text_a, pair.text_b]) for pair in alike)
    cosines = sorted(float(a @ b) for a, b in vectors)
    assert cosines[0] - 0.02 <= found.cosine_floor <= cosines[2]
