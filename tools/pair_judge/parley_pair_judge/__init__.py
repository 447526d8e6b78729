"""Trains the cache's judge of pairs upon the embedding model, and writes its weights."""
