"""For the tests of applications and plugins: simulated networks, a virtual clock, pytest fixtures."""
