"""What the second check knows of each language: closed-class words and set phrases."""

from __future__ import annotations

from parley_cache.semantic.languages.guessing import by_code, guess

__all__ = ["by_code", "guess"]
