"""What a released version has stored is read by this one, and is in order to it.

tests/data/store/released.json is a chat as that version wrote it: it is kept as it is, and a
release that changes the shape of documents adds another beside it.
"""

from pathlib import Path
from typing import Any

import pytest
from bson import json_util

from parley_session.domain.model import CacheStatus, Rating, RunState
from parley_session.operate.checking import check_chat
from parley_session.store.documents import chats, messages, runs

FILES = sorted((Path(__file__).parents[2] / "data" / "store").glob("*.json"))
Documents = dict[str, list[dict[str, Any]]]


@pytest.fixture(name="stored", params=FILES, ids=lambda path: path.name)
def _stored(request: pytest.FixtureRequest) -> Documents:
    options = json_util.JSONOptions(tz_aware=True)
    found: Documents = json_util.loads(request.param.read_text("utf-8"), json_options=options)
    return found


def test_a_stored_chat_is_whole_and_in_order(stored: Documents) -> None:
    (chat,) = map(chats.chat_from, stored["chats"])
    said = [messages.message_from(document) for document in stored["messages"]]
    made = [runs.run_from(document) for document in stored["runs"]]
    assert check_chat(chat, said, made, {run.id for run in made}) == []
    assert (chat.title, chat.next_seq, chat.message_count) == ("Capitals", 6, 4)
    assert chat.summary is not None
    assert chat.summary.until_seq == 1
    assert chat.pending[0].message == said[4].content
    assert chat.pending[0].request.options.max_tokens == 512
    assert [message.seq for message in said] == [0, 1, 2, 3, 4]
    assert (said[1].rating, said[1].flagged) == (Rating.DOWN, True)
    assert [run.state for run in made] == [RunState.COMPLETED, RunState.FAILED]
    assert made[0].prompt is not None
    assert made[1].cache is not None
    assert made[1].cache.status is CacheStatus.SEMANTIC
    assert made[1].error is not None
    assert made[1].error.code == "poisoned"


def test_a_document_that_lost_its_text_would_be_found(stored: Documents) -> None:
    (chat,) = map(chats.chat_from, stored["chats"])
    said = [messages.message_from(document | {"content": ""}) for document in stored["messages"]]
    made = [runs.run_from(document) for document in stored["runs"]]
    found = check_chat(chat, said, made, {run.id for run in made})
    assert {finding.what for finding in found} == {"answer_is_not_the_runs"}
