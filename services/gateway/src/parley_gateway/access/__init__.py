"""Who asks: keys, tenants and users."""
