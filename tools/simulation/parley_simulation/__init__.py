"""A fleet of virtual engines behind the chooser and the scaling formula of production."""
