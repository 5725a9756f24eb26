"""Nodes that meet with nothing but a DHT, in a lab whose internet has nothing else on it."""
