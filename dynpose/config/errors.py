"""The error of every faulty config."""


class ConfigError(ValueError):
    """A fault in a config; the message names the file, the key and what to do."""
