"""The answer cache, as the session service uses it."""
