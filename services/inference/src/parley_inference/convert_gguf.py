"""Turn one GGUF file into an ordinary Hugging Face model folder that vLLM serves.

    python -m parley_inference.convert_gguf --gguf FILE --out DIR [--sha256 HEX]

Runs in the inference environment (needs `transformers`, `torch` and `gguf`). The weights are
dequantised to bfloat16; tokenizer and chat template come along. The result appears under DIR
whole or not at all: it is written beside DIR, flushed, then renamed.

Exit status: 0 done (or DIR is there already), 1 the conversion failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")


class ConversionError(Exception):
    """The folder could not be made; the message is a sentence for a person."""


def is_model_folder(path: Path) -> bool:
    """Whether `path` holds a complete model: config, tokenizer and weights."""
    return all((path / name).is_file() for name in _REQUIRED) and any(path.glob("*.safetensors"))


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert(gguf: Path, out: Path, *, sha256: str = "") -> bool:
    """Write `gguf` as a model folder at `out`; False if a complete one is there already.

    Raises:
        ConversionError: the file is missing or altered, `out` holds something else, or the
            result is incomplete.
    """
    if is_model_folder(out):
        return False
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out} exists and is not a complete model folder; remove it first")
    if not gguf.is_file():
        raise ConversionError(f"{gguf} is not a file")
    if sha256 and (found := sha256_of(gguf)) != sha256.lower():
        raise ConversionError(f"{gguf} has sha256 {found}, expected {sha256.lower()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_model(gguf, work)
        if not is_model_folder(work):
            raise ConversionError("the converted folder is incomplete")
        # Who serves it is somebody else: the folder and the weights are made for their maker alone.
        work.chmod(0o755)
        for path in work.iterdir():
            path.chmod(0o644)
        _flush(work)
        if out.is_dir():
            out.rmdir()  # empty, as checked above; rename needs the name free
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _write_model(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Both readers take the file's folder and name apart.
    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        quantization_config=GgufConfig(dequantize=True, gguf_file=name),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _flush(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; see the module's head."""
    parser = argparse.ArgumentParser(prog="parley_inference.convert_gguf", description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--sha256", default="", help="expected digest of the GGUF file")
    args = parser.parse_args(argv)
    # A conversion never needs the network; an attempt would only stall.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        made = convert(args.gguf, args.out, sha256=args.sha256)
    except ConversionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{args.out}: {'converted' if made else 'already there'}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
