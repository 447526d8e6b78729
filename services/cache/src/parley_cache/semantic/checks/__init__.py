"""The rules that compare two questions for what their embeddings miss."""
