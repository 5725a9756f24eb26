pytest_plugins = ["tom_connect.testing.pytest_plugin"]
