"""Looking a node up: the sources, and the endpoint that asks them."""
