"""The operator's command: `python -m parley_session.operate`."""
