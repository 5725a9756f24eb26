"""What both the caller and the callee need that were written from the pages alone; of the project it has nothing.

Formats, disco's sealed packets, as much of KRPC as a node needs that answers no queries, and either side of port
probing: docs/reference/rendezvous.md, disco.md, wire-formats.md.
"""
