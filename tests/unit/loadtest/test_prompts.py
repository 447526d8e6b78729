"""Questions: unique unless hits are wanted, and prompt files told apart from mistakes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from parley_loadtest.prompts import Asker, PromptFileError, built_in_scripts, read_scripts


def asker(hit_share: float, seed: int = 1) -> Asker:
    return Asker(built_in_scripts(), hit_share, random.Random(seed))


def test_without_a_hit_share_no_question_is_asked_twice() -> None:
    seen = set()
    for seed in range(20):
        one = asker(0.0, seed)
        for _ in range(50):
            talk = one.talk(1)
            one.answered(talk.first)
            assert not talk.repeated
            seen.add(talk.first)
    assert len(seen) == 1000


def test_a_hit_share_repeats_only_what_was_answered() -> None:
    one = asker(0.5)
    answered = set()
    repeated = 0
    assert not one.talk(1).repeated
    for _ in range(1000):
        talk = one.talk(1)
        if talk.repeated:
            repeated += 1
            assert talk.first in answered
        else:
            one.answered(talk.first)
            answered.add(talk.first)
    assert 400 < repeated < 600


def test_a_talk_has_as_many_questions_as_asked_for() -> None:
    assert [len(asker(0.0).talk(turns).follow_ups) for turns in (0, 1, 2, 5)] == [0, 0, 1, 4]


def test_a_prompt_file_may_be_plain_lines_or_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    line = json.dumps({"prompt": "Zwei\nZeilen", "followUps": ["Und?"]})
    path.write_text(f"What is a heron?\n\n{line}\n", "utf-8")
    plain, structured = read_scripts(path)
    assert plain.first == "What is a heron?"
    assert plain.follow_ups
    assert (structured.first, structured.follow_ups) == ("Zwei\nZeilen", ("Und?",))


@pytest.mark.parametrize(
    "content",
    ["", "\n\n", "{broken", '{"prompt": 3}', '{"prompt": " "}', '{"prompt": "a", "followUps": 1}'],
)
def test_a_wrong_prompt_file_is_told_by_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(PromptFileError, match=r"prompts\.txt"):
        read_scripts(path)


def test_a_missing_prompt_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError):
        read_scripts(tmp_path / "nowhere")
