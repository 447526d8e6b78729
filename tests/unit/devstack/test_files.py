from __future__ import annotations

import os
from pathlib import Path

import pytest

from parley_devstack import mongo_indexes, stackfile
from parley_devstack.guard import follow
from parley_devstack.process import Plan, Process, tail


def a_process(folder: Path) -> Process:
    return Process(
        Plan(
            name="session-1",
            kind="session",
            command=("python", "-m", "parley_session"),
            env={"PARLEY_SESSION_MONGODB_URI": "mongodb://user:secret@db/"},
            log=folder / "session-1.log",
            cwd=folder,
            ready=lambda: True,
            grpc="127.0.0.1:20001",
            admin="127.0.0.1:20002",
        )
    )


def test_the_stack_file_lists_addresses_and_logs_but_no_environment(tmp_path: Path) -> None:
    path = tmp_path / "home" / "stack.json"
    stackfile.write(path, [a_process(tmp_path)], engine="sim")
    content = stackfile.read(path)
    assert content is not None
    assert content["engine"] == "sim"
    assert content["processes"] == [
        {
            "name": "session-1",
            "kind": "session",
            "pid": None,
            "state": "planned",
            "grpc": "127.0.0.1:20001",
            "http": "",
            "admin": "127.0.0.1:20002",
            "log": str(tmp_path / "session-1.log"),
            "command": ["python", "-m", "parley_session"],
        }
    ]
    assert "secret" not in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["stack.json"]


def test_a_stack_file_belongs_to_its_writer_while_that_lives(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    assert stackfile.owner(path) is None
    stackfile.write(path, [])
    assert stackfile.owner(path) == os.getpid()
    os.utime(path, (1, 1))  # written before this process began: its pid was another's
    assert stackfile.owner(path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}'])
def test_a_broken_stack_file_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stack.json"
    path.write_text(content)
    assert stackfile.read(path) is None
    assert stackfile.owner(path) is None


def test_tail_gives_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % n for n in range(50_000)))
    assert tail(log, 2) == ["line 49998 \ufffd", "line 49999 \ufffd"]
    assert tail(tmp_path / "none.log") == []


def test_the_guard_keeps_what_was_added_and_not_removed() -> None:
    assert follow(["add 5\n", "add 6\n", "remove 5\n", "remove 9\n", "add 7\n"]) == [6, 7]


def test_lookup_indexes_begin_with_the_id_and_have_names_of_their_own() -> None:
    commands = mongo_indexes.create_indexes_commands()
    for command in commands:
        indexes = command["indexes"]
        assert isinstance(indexes, list)
        names = [index["name"] for index in indexes]
        assert len(names) == len(set(names))
        assert all(next(iter(index["key"])) == "_id" for index in indexes)
        assert all(index["unique"] for index in indexes)
