"""The conversion refuses what it cannot do, and leaves nothing half done."""

from pathlib import Path

import pytest

from parley_inference import convert_gguf


def complete(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_a_complete_folder_is_kept(tmp_path: Path) -> None:
    out = complete(tmp_path / "model")
    assert convert_gguf.convert(tmp_path / "missing.gguf", out) is False


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--gguf", str(tmp_path / "missing.gguf"), "--out", str(tmp_path / "model")]
    assert convert_gguf.main(arguments) == 1
    assert "is not a file" in capsys.readouterr().err


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(convert_gguf.ConversionError, match="sha256"):
        convert_gguf.convert(gguf, tmp_path / "model", sha256="0" * 64)


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    out = tmp_path / "model"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(convert_gguf.ConversionError, match="not a complete model"):
        convert_gguf.convert(gguf, out)


def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("broken file")

    monkeypatch.setattr(convert_gguf, "_write_model", fail)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(RuntimeError):
        convert_gguf.convert(gguf, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [gguf]


def test_a_converted_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(gguf: Path, folder: Path) -> None:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "a.safetensors"):
            (folder / name).write_text("{}")
        (folder / "a.safetensors").chmod(0o600)

    monkeypatch.setattr(convert_gguf, "_write_model", write)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    out = tmp_path / "deep" / "model"
    assert convert_gguf.convert(gguf, out, sha256=convert_gguf.sha256_of(gguf)) is True
    assert convert_gguf.is_model_folder(out)
    assert list(out.parent.iterdir()) == [out]
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    assert out.stat().st_mode & 0o777 == 0o755
