"""HTTP mechanics: the protocol, reading bodies, routing, middleware, event streams."""
