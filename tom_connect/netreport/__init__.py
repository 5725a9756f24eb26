"""What this machine and its network can do; for now, which addresses it has."""
