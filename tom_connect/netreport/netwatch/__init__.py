"""Notices that the network is another one: `core` judges, `netlink` and `clocks` tell, `shell` runs them."""
