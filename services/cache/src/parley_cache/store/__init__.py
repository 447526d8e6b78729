"""Where entries are kept: the protocol, its in-memory twin, Redis."""
