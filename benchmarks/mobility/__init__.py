"""The other contender of the mobility benchmark."""
