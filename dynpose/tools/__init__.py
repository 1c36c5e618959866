"""The `dynpose` command: one module per subcommand."""
