"""What the platform costs: streamed tokens and requests through it, against its engine directly."""
