"""The evaluation: its arithmetic, its input, its command line."""

import json
from pathlib import Path

import pytest

from parley_cache.semantic.calibration import CalibrationError, read_calibration
from parley_cache.semantic.evaluation.cli import main
from parley_cache.semantic.evaluation.figures import Share, at, best, curve, wilson
from parley_cache.semantic.evaluation.pairs import PairsError, read_pairs
from support.embedding import PAIRS, WordModel


def test_wilson_is_the_published_interval() -> None:
    low, high = wilson(8, 10)

    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == pytest.approx(1.0)


def test_served_is_of_the_same_and_wrong_is_per_hit() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.0]
    same = [True, True, False, True, True]

    points = curve(scores, same)

    assert [(p.served.value, p.wrong.value) for p in points] == [
        (0.25, 0.0),
        (0.5, 0.0),
        (0.5, 1 / 3),
        (0.75, 0.25),
    ]
    strict, loose = best(points, 0.01), best(points, 0.25)
    assert strict is not None
    assert loose is not None
    assert strict.threshold == 0.8
    assert loose.threshold == 0.6
    assert at(scores, same, 0.65).wrong == Share(1, 3)


def test_pairs_of_one_score_are_served_together() -> None:
    points = curve([0.5, 0.5], [True, False])

    assert [(p.served.value, p.wrong.value) for p in points] == [(1.0, 0.5)]
    assert best(points, 0.01) is None


def test_a_score_of_nothing_is_never_served() -> None:
    assert curve([0.0, 0.0], [True, True]) == []


@pytest.mark.parametrize(
    "text",
    [
        "text_a\ttext_b\tlabel\tcategory\nhow a\thow b\t1\tx\nhow a\thow c\t0\ty\n",
        "how a\thow b\t1\tx\r\nhow a\thow c\t0\ty\r\n",
        "\ufefflabel\tcategory\ttext_b\ttext_a\n1\tx\thow b\thow a\n0\ty\thow c\thow a\n",
        '{"text_a":"how a","text_b":"how b","label":1,"category":"x"}\n\n'
        '{"text_a":"how a","text_b":"how c","label":false,"category":"y"}\n',
    ],
)
def test_tsv_and_json_lines_are_read_alike(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs"
    file.write_text(text, encoding="utf-8")

    pairs = read_pairs(file).pairs

    assert [(p.text_a, p.text_b, p.same, p.category) for p in pairs] == [
        ("how a", "how b", True, "x"),
        ("how a", "how c", False, "y"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no pair"),
        ("how a\thow b\n", "line 1: 2 columns"),
        ("how a\thow b\t1\nhow a\thow b\tmaybe\n", "line 2: the label 'maybe'"),
        ("how a\t \t1\n", "line 1: a question is empty"),
        ('{"text_a":"a","text_b":"b","label":1}\n{"text_a":\n', "line 2: not JSON"),
        ('{"text_a":"a","label":1}\n', "line 1: text_b is missing"),
        ('{"text_a":"a","text_b":3,"label":1}\n', "line 1: text_a and text_b must be text"),
    ],
)
def test_bad_input_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(text)

    with pytest.raises(PairsError, match=told):
        read_pairs(file)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes(b"a\tb\t1\n\xff\xfe\t\t")

    with pytest.raises(PairsError, match="not UTF-8"):
        read_pairs(file)


def test_the_command_ends_with_2_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.tsv")], WordModel()) == 2
    assert "none.tsv" in capsys.readouterr().err
    assert main([str(PAIRS), "--split", "nothing"], WordModel()) == 2
    assert "calibrate, held, report" in capsys.readouterr().err


def test_the_json_holds_what_the_table_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    arguments = [str(PAIRS), "--split", "report"]

    assert main([*arguments, "--json", "--plot", str(plot)], WordModel()) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(arguments, WordModel()) == 0
    table = capsys.readouterr().out

    assert set(found["limits"]) == {"0.01", "0.05"}
    assert set(found["limits"]["0.01"]) == {"cosine", "verdict"}
    assert f"{found['as_shipped']['served']['share']:.1%}" in table
    assert all(category in table for category in found["categories"])
    assert plot.read_text().startswith("<svg")


def test_a_calibration_is_written_read_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "calibration.json"

    code = main([str(PAIRS), "--split", "report", "--calibrate", str(file)], WordModel())

    assert code == 0
    written = read_calibration(file)
    assert written.model == "words:0"
    assert written.provenance["split"] == "report"
    assert written.provenance["wrong"]["share"] <= 0.01
    assert written.provenance["served"]["share"] > 0.1
    capsys.readouterr()
    arguments = [str(PAIRS), "--split", "report", "--calibration", str(file), "--json"]
    assert main(arguments, WordModel()) == 0
    used = json.loads(capsys.readouterr().out)["as_shipped"]
    assert used["threshold"] == written.threshold
    assert used["served"] == written.provenance["served"]
    assert used["wrong_per_hit"] == written.provenance["wrong"]


@pytest.mark.parametrize("body", ["", "[]", '{"format": 9}', '{"format": 1, "model": "m"}'])
def test_a_broken_calibration_is_refused_in_a_sentence(tmp_path: Path, body: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(body)

    with pytest.raises(CalibrationError):
        read_calibration(file)
