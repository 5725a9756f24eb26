"""QUIC for tom-connect: aioquic's engine with raw public keys, our flow control, path MTU search and fast paths.

Everything here is sans-IO except the driver. All names of aioquic that we touch are used in this folder only and
checked by `names` at import, before any other module of the folder can trip over one.
"""

from __future__ import annotations

from tom_connect.quic import names

names.require()
names.cache_epochs()
