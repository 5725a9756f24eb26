"""Paths between two nodes: the disco codec and the path state machines, without any I/O."""
