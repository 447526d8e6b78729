"""Calls to the session service."""
