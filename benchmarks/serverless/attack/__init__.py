"""Attacks on two nodes that have nothing but a DHT: who attacks, and what it costs those who are attacked."""
