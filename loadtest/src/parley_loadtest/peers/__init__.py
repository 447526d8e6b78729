"""The platform beside its peers: LiteLLM's proxy, and vLLM's own server."""
