"""For the tests of applications and plugins: simulated and real networks, a virtual clock, pytest fixtures."""
