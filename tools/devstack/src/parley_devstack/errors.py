"""What can go wrong, in sentences.

DevstackError
├── SetupError       something that is needed could not be made or fetched
├── PreflightError   the machine lacks something; told before anything is downloaded
├── StartError       a part did not become ready
└── PortInUseError   somebody else listens where a part should
"""

from __future__ import annotations


class DevstackError(Exception):
    """Something a person can act on: what happened, and what to do about it."""

    def __init__(self, what: str, advice: str = "") -> None:
        separator = "\n" if "\n" in what else " "
        super().__init__(f"{what.rstrip()}{separator}{advice}".strip())
        self.what = what
        self.advice = advice


class SetupError(DevstackError):
    """An environment, a jar or a model could not be made or fetched."""


class PreflightError(DevstackError):
    """This machine lacks something; nothing was downloaded."""


class StartError(DevstackError):
    """A part of the stack died or did not become ready in its time."""


class PortInUseError(DevstackError):
    """Another process listens on a port that a part was told to use."""
