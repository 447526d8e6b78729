"""The stores and logs that this folder's suites run against."""

from support.session_stores import open_mongo, run_log, store, tested

__all__ = ["open_mongo", "run_log", "store", "tested"]
