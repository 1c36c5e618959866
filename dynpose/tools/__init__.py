"""The `dynpose` command: one module a subcommand."""
