"""Durable state: the `Store` protocol and what keeps it."""
