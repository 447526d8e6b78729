"""Where the time of an answer, and of a token, goes: in each process, by sampling its stacks."""
