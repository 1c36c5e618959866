"""The error raised when reading and writing checkpoints."""


class CheckpointError(ValueError):
    """Weights that do not fit the model, or a file that can't be read or written.

    The message names the file and the remedy.
    """
