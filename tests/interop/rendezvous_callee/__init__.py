"""A callee of rendezvous written from docs/reference/rendezvous.md, disco.md and wire-formats.md alone.

Python's standard library and `cryptography`, nothing of the project. It leaves its record and its invitation in a
DHT, for everybody or for one contact, watches its mailbox, knocks at whoever calls, reads sealed calls and does its
part of port probing, and answers disco until a caller's QUIC comes over the path: it has none itself. IPv4 alone.
"""
