"""`python -m tom_connect` is `tom-connect`."""

from __future__ import annotations

from tom_connect.cli.entry import main

if __name__ == "__main__":  # a child process of a program that was started so imports this module again
    main()
