"""From steps of an engine to chunks of an answer: stop strings, boundaries, coalescing."""
