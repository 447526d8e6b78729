"""Engines: what draws tokens. Each keeps the contract of ``engine.base``."""
