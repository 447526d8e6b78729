"""What of a chat the model sees."""
