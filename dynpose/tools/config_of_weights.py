"""The config that weights belong to, for commands without ``--config-file``."""

import os

CONFIG_OF_RUN = "config.yaml"


def config_of_weights(weights: str) -> str | None:
    """Find the config of weights.

    Args:
        weights: a file or the name of published weights.

    Returns:
        ``config.yaml`` in the folder of the file, as a run leaves it, or the first config of the published weights;
        None if there is neither.
    """
    from dynpose.checkpoint.published import find_weights

    path = os.path.join(os.path.dirname(os.path.expanduser(weights)), CONFIG_OF_RUN)
    if _is_file(weights):
        return path if os.path.isfile(path) else None
    published = find_weights(weights)
    return published.configs[0] if published is not None and published.configs else None


def required_config(config_file: str | None, weights: str) -> str:
    """The given config, or that of the weights.

    Args:
        config_file: None = not given.
        weights: a file or the name of published weights.

    Raises:
        CheckpointError: there is neither such a file nor such a name; the message lists similar names.
        ConfigError: no config is given, and none belongs to the weights.
    """
    from dynpose.checkpoint.published import check_name
    from dynpose.config import ConfigError

    config_file = config_file or config_of_weights(weights)
    if config_file is None:
        check_name(os.path.expanduser(weights))
        reason = f"there is no {CONFIG_OF_RUN} in its folder" if _is_file(weights) else "no config belongs to them"
        raise ConfigError(f"--weights {weights}: {reason}; give the config of the model with --config-file")
    return config_file


def _is_file(path):
    return os.path.isfile(os.path.expanduser(path))
