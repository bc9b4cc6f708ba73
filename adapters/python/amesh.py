"""What an agent's own code may import: the running task, and what can be done with it (spec/local-api.md)."""
