"""The run protocol: starting, making, finishing, deleting, sweeping."""
