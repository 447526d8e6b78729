"""Names the revision of a model in a folder, by its content."""

import hashlib
from pathlib import Path
from typing import Final

_SMALL_FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.gguf", "*.pt")
# Of weights, as much at either end: reading all of a large model would take minutes.
_EDGE_BYTES: Final = 1 << 20


def folder_revision(folder: Path) -> str:
    """A digest of configuration, tokenizer and template whole, of weights by size and edges."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SMALL_FILES for path in folder.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(size - _EDGE_BYTES, 0))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:16]
