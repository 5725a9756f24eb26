"""What commands and servers of plugins have in common.

`commands`: options of a command that serves; `listening`: sockets; `sources`: who counts as one source; `metrics`: what
a server counts, for Prometheus. None imports what only the others need.
"""
