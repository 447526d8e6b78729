"""A trained judge of two questions, built upon the embedding model's own weights."""
