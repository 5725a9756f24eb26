"""What this machine and its network can do: its addresses, how others see them, and what kind of NAT stands between."""
