"""Matching questions by meaning: embedding, the second check, calibration, evaluation."""
