"""A stand-in for an engine: paced, deterministic, faultable. Its answers say what they are."""
