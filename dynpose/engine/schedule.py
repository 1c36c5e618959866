"""Converting the papers' schedules, in epochs and for a batch size, to detectron2's iterations and learning rate."""

import logging
import math

from detectron2.config import CfgNode, get_cfg

from dynpose.config import ConfigError, check_at_least_one, check_not_negative
from dynpose.data.loader import training_dicts

logger = logging.getLogger(__name__)


def epochs_to_iterations(epochs: float, num_images: int, batch_size: int) -> int:
    """Iterations until every image has been seen ``epochs`` times; the last batch may repeat some images.

    Args:
        epochs (float): passes over the images.
        num_images (int): images per epoch.
        batch_size (int): images per iteration, over all processes.

    Returns:
        int

    Example::

        >>> epochs_to_iterations(36, num_images=56599, batch_size=16)
        127348
    """
    # 0.1 epochs of 30 images is one batch of 3, although 0.1 * 30 is a little more than 3
    return math.ceil(round(epochs * num_images / batch_size, 6))


def num_training_images(cfg: CfgNode) -> int:
    """Count the training images: those of ``DATASETS.TRAIN`` that are left after detectron2's filtering.

    Args:
        cfg (CfgNode): the data sets must be registered. As in ``build_detection_train_loader``,
            DATALOADER.FILTER_EMPTY_ANNOTATIONS and, with MODEL.KEYPOINT_ON,
            MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE control the filter.

    Returns:
        int
    """
    return len(training_dicts(cfg))


def resolve_epochs(cfg: CfgNode, num_images: int | None = None) -> None:
    """Turn ``SOLVER.MAX_EPOCHS`` and ``STEPS_EPOCHS`` into ``MAX_ITER`` and ``STEPS``, in place.

    :func:`dynpose.engine.setup` does it for every training; call it if you build a trainer yourself. It clears the two
    epoch keys: the config then states the actual schedule, and can be reloaded, also with another data set or batch
    size.

    Args:
        cfg (CfgNode): not frozen. Unchanged if MAX_EPOCHS is 0.
        num_images (int): images per epoch; None = :func:`num_training_images`.

    Raises:
        ConfigError: MAX_EPOCHS is negative; STEPS_EPOCHS is set without MAX_EPOCHS; steps are not ascending between 0
            and MAX_EPOCHS or fall on the same iteration; or MAX_ITER or STEPS are given too (differ from detectron2's
            defaults) and contradict the epochs.
    """
    check_not_negative(cfg, "SOLVER.MAX_EPOCHS")
    solver = cfg.SOLVER
    if solver.MAX_EPOCHS == 0:
        if len(solver.STEPS_EPOCHS):
            raise ConfigError(
                f"SOLVER.STEPS_EPOCHS is {list(solver.STEPS_EPOCHS)}, but SOLVER.MAX_EPOCHS is 0: give MAX_EPOCHS too, "
                "or set STEPS_EPOCHS '[]' and train by MAX_ITER and STEPS"
            )
        return
    if not _ascend_between(0, solver.STEPS_EPOCHS, solver.MAX_EPOCHS):
        raise ConfigError(
            f"SOLVER.STEPS_EPOCHS must ascend between 0 and SOLVER.MAX_EPOCHS {solver.MAX_EPOCHS}, "
            f"got {list(solver.STEPS_EPOCHS)}"
        )
    if num_images is None:
        num_images = num_training_images(cfg)

    batch_size = solver.IMS_PER_BATCH
    max_iter = epochs_to_iterations(solver.MAX_EPOCHS, num_images, batch_size)
    steps = tuple(epochs_to_iterations(epoch, num_images, batch_size) for epoch in solver.STEPS_EPOCHS)
    if _drops_at_steps(cfg) and not _ascend_between(0, steps, max_iter):
        raise ConfigError(
            f"SOLVER.STEPS_EPOCHS {list(solver.STEPS_EPOCHS)} are the iterations {', '.join(map(str, steps))} of "
            f"{max_iter}, for {num_images} images in batches of {batch_size}: the learning rate can't drop at each of "
            "them; lower SOLVER.IMS_PER_BATCH, or set SOLVER.STEPS_EPOCHS to []"
        )
    defaults = get_cfg().SOLVER
    for key, epochs_key, value in (("MAX_ITER", "MAX_EPOCHS", max_iter), ("STEPS", "STEPS_EPOCHS", steps)):
        default = defaults[key]
        if solver[key] not in (default, value):
            raise ConfigError(
                f"SOLVER.{epochs_key} {solver[epochs_key]} is SOLVER.{key} {value} for {num_images} images in batches "
                f"of {batch_size}, but SOLVER.{key} is set to {solver[key]}. Give one of them: "
                "SOLVER.MAX_EPOCHS 0 SOLVER.STEPS_EPOCHS '[]' to train by iterations, or "
                f'SOLVER.{key} "{default}", its default, to train by epochs'
            )
    logger.info(
        f"{solver.MAX_EPOCHS} epochs of {num_images} images in batches of {batch_size}: {max_iter} iterations"
        + (f", steps at {', '.join(map(str, steps))}" if steps else "")
    )
    solver.MAX_ITER, solver.STEPS = max_iter, steps
    solver.MAX_EPOCHS, solver.STEPS_EPOCHS = 0, []


def check_steps(cfg: CfgNode) -> None:
    """Check the numbers of a schedule, which detectron2 and PyTorch refuse without naming the key, or accept.

    Args:
        cfg (CfgNode): from :func:`resolve_epochs`. Steps beyond MAX_ITER are ignored, as in detectron2.

    Raises:
        ConfigError: SOLVER.MAX_ITER or CHECKPOINT_PERIOD is below 1; BASE_LR, WEIGHT_DECAY, TEST.EVAL_PERIOD,
            WARMUP_ITERS, WARMUP_FACTOR or GAMMA is negative; or STEPS do not ascend between 0 and MAX_ITER.
    """
    check_not_negative(cfg, "SOLVER.WARMUP_ITERS", "SOLVER.WARMUP_FACTOR", "SOLVER.GAMMA")
    check_at_least_one(cfg, "SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD")
    check_not_negative(cfg, "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY", "TEST.EVAL_PERIOD")
    solver = cfg.SOLVER
    steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]
    if _drops_at_steps(cfg) and not _ascend_between(0, steps, solver.MAX_ITER):
        raise ConfigError(
            f"SOLVER.STEPS must ascend between 0 and SOLVER.MAX_ITER {solver.MAX_ITER}, got {tuple(solver.STEPS)}"
        )


def _drops_at_steps(cfg):
    return cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"


def _ascend_between(first, values, last):
    bounds = [first, *values, last]
    return all(low < high for low, high in zip(bounds[:-1], bounds[1:]))


def resolve_reference_batch(cfg: CfgNode) -> None:
    """Scale ``SOLVER.BASE_LR`` from ``SOLVER.REFERENCE_BATCH`` images to ``IMS_PER_BATCH``, in place.

    :func:`dynpose.engine.setup` does it for every training. It sets REFERENCE_BATCH to IMS_PER_BATCH: the config states
    the actual learning rate, and scales it again when it is loaded with another batch size.

    Args:
        cfg (CfgNode): not frozen. Unchanged if REFERENCE_BATCH is 0.

    Raises:
        ConfigError: REFERENCE_BATCH is below 0.

    Example::

        >>> cfg.SOLVER.BASE_LR, cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH = 0.001, 40, 20
        >>> resolve_reference_batch(cfg)
        >>> cfg.SOLVER.BASE_LR
        0.0005
    """
    solver = cfg.SOLVER
    if not solver.REFERENCE_BATCH >= 0:
        raise ConfigError(
            f"SOLVER.REFERENCE_BATCH must be the images of a batch, or 0 to leave SOLVER.BASE_LR as it is, got "
            f"{solver.REFERENCE_BATCH}"
        )
    if solver.REFERENCE_BATCH in (0, solver.IMS_PER_BATCH):
        return
    base_lr = solver.BASE_LR * solver.IMS_PER_BATCH / solver.REFERENCE_BATCH
    logger.info(
        f"SOLVER.BASE_LR {solver.BASE_LR:g} is for batches of {solver.REFERENCE_BATCH}: {base_lr:g} for batches of "
        f"{solver.IMS_PER_BATCH}"
    )
    solver.BASE_LR, solver.REFERENCE_BATCH = base_lr, solver.IMS_PER_BATCH
