"""From command-line arguments to a finished run: what train_net.py calls."""

import contextlib
import logging

from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import load_config
from dynpose.data.coco_json import forget_logged

from .preflight import check_and_complete, check_machine
from .resuming import resolve_seed
from .trainer import PoseTrainer

logger = logging.getLogger(__name__)

_LOGGERS = tuple(map(logging.getLogger, ("dynpose", "detectron2", "fvcore")))
# (logger, handler) that the last set-up of this process has attached to them
_attached = []


def setup(args):
    """Read the config, register its data sets, check that they fit the model, and prepare the output folder.

    The keypoint schema is written into the config, for training also the iterations of a schedule in epochs, the
    learning rate for the batch and a seed. The config is saved to ``OUTPUT_DIR/config.yaml``: that file and the weights
    are all that prediction needs.

    Args:
        args (argparse.Namespace): of detectron2's ``default_argument_parser``.

    Returns:
        CfgNode: frozen.

    Raises:
        ConfigError, DatasetError: with the file, the item and the mend.
    """
    cfg = load_config(args.config_file, args.opts)
    check_machine(cfg)
    with _log_of_its_own():
        _log_to(cfg.OUTPUT_DIR)
        forget_logged()
        check_and_complete(cfg, eval_only=args.eval_only)
        if not args.eval_only:
            resolve_seed(cfg, resume=args.resume)
        cfg.freeze()
        default_setup(cfg, args)
    logger.info("Keypoints of the model: %s", ", ".join(cfg.MODEL.KEYPOINT_SCHEMA.NAMES))
    if not args.eval_only:
        # in the config that detectron2 logs, escape sequences of its colours stand between a key and its value
        logger.info("SEED is %d", cfg.SEED)
    return cfg


@contextlib.contextmanager
def _log_of_its_own():
    """Detach what the last set-up of this process has attached to the loggers, and keep track of what this one does.

    Otherwise the lines of a second run appear twice on the screen, and in the first one's ``log.txt`` too.
    """
    while _attached:
        log, handler = _attached.pop()
        log.removeHandler(handler)
    # it attaches nothing for a folder that it remembers
    setup_logger.cache_clear()
    others = [(log, handler) for log in _LOGGERS for handler in log.handlers]
    try:
        yield
    finally:
        now = [(log, handler) for log in _LOGGERS for handler in log.handlers]
        _attached.extend(item for item in now if item not in others)


def _log_to(folder):
    """Show what dynpose logs, and write it to ``log.txt`` beside what detectron2 logs.

    detectron2's own set-up attaches handlers to its own loggers only.
    """
    if comm.is_main_process() and folder:
        PathManager.mkdirs(folder)
    setup_logger(folder or None, distributed_rank=comm.get_rank(), name="dynpose")


def main(args):
    """Train, or evaluate with ``--eval-only``.

    Args:
        args (argparse.Namespace): of detectron2's ``default_argument_parser``.

    Returns:
        dict: the last evaluation's results.

    Raises:
        CheckpointError: MODEL.WEIGHTS do not fit the model; to be evaluated, they must fill it.
    """
    cfg = setup(args)
    if not args.eval_only:
        trainer = PoseTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        # DefaultTrainer.train returns it only where TEST.EXPECTED_RESULTS is set
        return getattr(trainer, "_last_eval_results", {})

    model = PoseTrainer.build_model(cfg)
    checkpointer = PoseCheckpointer(model, save_dir=cfg.OUTPUT_DIR, complete=True, class_names=cfg.MODEL.CLASS_NAMES)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = PoseTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results = {**results, **PoseTrainer.test_with_TTA(cfg, model)}
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
