"""Starting: what a process does that has only just begun."""

ALPN = "benchmark/startup"
