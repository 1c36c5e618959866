"""The error raised for every faulty config."""


class ConfigError(ValueError):
    """A fault in a config; the message names the file, the key and the remedy."""
