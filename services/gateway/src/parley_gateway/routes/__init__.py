"""The native routes of the REST contract, one module a resource."""
