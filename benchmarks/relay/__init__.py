"""Children of the relay's benchmarks: the servers, and the clients that load them."""
