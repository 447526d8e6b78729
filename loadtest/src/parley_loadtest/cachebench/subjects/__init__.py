"""Caches that are measured, each a process of its own that obeys `child`."""
