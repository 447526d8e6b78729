"""Judging and calibrating the second check on labelled pairs."""
