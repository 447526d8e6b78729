"""The order in which runs are made when the fleet has no room for all of them."""
