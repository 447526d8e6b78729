"""What is done from time to time, whether or not anybody asks."""
