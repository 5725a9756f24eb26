"""How soon two nodes behind NATs are connected, and how soon directly; in a lab of network namespaces."""
