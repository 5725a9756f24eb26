"""The command `tom-connect`. `tom_connect.cli.options` says how a command is written."""
