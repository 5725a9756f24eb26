"""Rendezvous through the DHT, without I/O: see docs/reference/rendezvous.md for the protocol.

`invitation`: what a node publishes about being called; `mailbox`: polls for calls; `callee`: what they amount to.
"""
