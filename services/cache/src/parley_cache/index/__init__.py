"""Finding stored questions near a new one. An index nominates; it never decides."""
