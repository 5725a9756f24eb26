"""A caller of rendezvous written from docs/reference/rendezvous.md and disco.md alone: Python's standard library and `cryptography`, nothing of the project.

It looks up a node's record and invitation in a DHT, calls it by announcement, by a sealed call or by both, and ends with the first pong. IPv4 only.
"""
