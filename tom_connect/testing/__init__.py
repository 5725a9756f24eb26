"""For tests of plugins and applications; nothing of it is needed to run them."""
