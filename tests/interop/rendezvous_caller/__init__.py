"""A caller of rendezvous written from docs/reference/rendezvous.md and disco.md alone, before a look at any code.

Python's standard library and `cryptography`, nothing of the project. It looks up a node's record and invitation in a
DHT, calls it by announcement, leaves a sealed call and does its part of port probing where that helps, and ends with
the first pong. IPv4 alone; one run is one call.
"""
