"""The same work over several QUIC programs: bulk transfer, connecting, small requests, idle connections."""
