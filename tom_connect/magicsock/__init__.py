"""The magic socket: one UDP socket a family, under one constant address for each remote node."""
