"""Starts the whole of Parley on one machine."""
