"""Relays that nodes run for others: QUIC on their own socket, named by their key, found through a topic directory."""
