"""What chats, turns, messages and runs are; no I/O."""
