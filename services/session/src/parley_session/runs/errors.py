"""Why making a run stops before its end; none of these reaches a caller."""

from __future__ import annotations


class Fenced(Exception):
    """Another attempt has the run, or the run is gone: write nothing more."""


class Deleted(Exception):
    """The run's chat was deleted: write nothing more."""


class LogLost(Exception):
    """A started run has no whole log: what its readers have seen is not known."""
