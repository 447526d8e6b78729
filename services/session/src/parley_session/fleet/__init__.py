"""Choosing an engine and drawing an answer from it."""
