"""What the answer cache costs and saves, beside its peers."""
