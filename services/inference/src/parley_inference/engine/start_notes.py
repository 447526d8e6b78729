"""What vLLM's processes say while they start: their last words, and why one of them failed.

They log through a configuration of ours; a handler in it leaves notes in a folder, where this
process, which only learns *that* one of them ended, can read *why*.
"""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Final

from pydantic import ValidationError

_CAUSE: Final = "cause"
_LAST: Final = "last"
_MAX_CHARACTERS: Final = 600


class NoteHandler(logging.Handler):
    """Keeps the first error with an exception, and the last line; for as long as ``folder`` is."""

    def __init__(self, folder: str) -> None:
        super().__init__(logging.INFO)
        self._folder = Path(folder)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a note."""
        error = record.exc_info[1] if record.exc_info else None
        # The folder goes when the start is over.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            if record.levelno >= logging.ERROR and error is not None:
                # The first is the root: the others report that a process failed.
                with (self._folder / _CAUSE).open("x", encoding="utf-8") as file:
                    file.write(sentence_of(error))
            else:
                (self._folder / _LAST).write_text(_shorten(record.getMessage()), "utf-8")


class StartNotes:
    """Reads the notes in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def cause(self) -> str:
        """Why a process failed; empty if none said so."""
        return self._read(_CAUSE)

    @property
    def last(self) -> str:
        """The last line that was logged; empty if there is none."""
        return self._read(_LAST)

    def close(self) -> None:
        """No more notes are taken."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def sentence_of(error: BaseException) -> str:
    """What an exception says, in one line; pydantic's own frame around it left out."""
    said = str(error)
    if isinstance(error, ValidationError):
        said = "; ".join(mistake["msg"] for mistake in error.errors(include_input=False)) or said
    return _shorten(said) or type(error).__name__


def _shorten(text: str) -> str:
    return " ".join(text.split())[:_MAX_CHARACTERS]
