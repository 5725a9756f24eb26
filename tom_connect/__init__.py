"""tom-connect: dial a node by its public key, wherever it is."""
