"""From command-line arguments to a finished run: the entry points of the training and evaluation commands."""

import argparse
import atexit
import contextlib
import logging
import os
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, find_config_file, load_config
from dynpose.data import DatasetError
from dynpose.data.coco_json import forget_logged
from dynpose.runtime.sessions import is_exported
from dynpose.utils.freed_memory import keep_freed_memory
from dynpose.utils.locking import LockedError, locked

from .custom_data import complete_for_data, prepare_data
from .devices import check_device
from .exported_evaluation import evaluate_exported
from .fast_inference import optimize_for_inference
from .precision import Precision
from .preflight import check_and_complete, check_machine
from .resuming import resolve_seed
from .trainer import PoseTrainer
from .watchdog import watched

logger = logging.getLogger(__name__)

_LOCK = "run.lock"
# the lock of the output folder of this process's latest setup
_held = contextlib.ExitStack()

_LOGGERS = tuple(map(logging.getLogger, ("dynpose", "detectron2", "fvcore")))
# (logger, handler) pairs attached by this process's latest setup
_attached: list[tuple[logging.Logger, logging.Handler]] = []


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config, register its data sets, check that they fit the model, and prepare the output folder.

    The keypoint schema is written into the config; for training also the iterations of a schedule in epochs, the
    learning rate for the batch size and a seed. The config is saved to ``OUTPUT_DIR/config.yaml``: prediction needs
    only this file and the weights.

    The main process locks the folder with ``OUTPUT_DIR/run.lock`` until the process ends or sets up another run.

    Args:
        args (argparse.Namespace): from detectron2's ``default_argument_parser``. Optional attributes are ``data``, a
            data file to train on (:mod:`dynpose.engine.custom_data`), and with it ``fine_tunes``, whether the weights
            are trained ones, and ``config_reason``, why it is this config, for the log; with ``eval_only``,
            ``precision`` and ``compile`` of :func:`~dynpose.engine.optimize_for_inference`, without which the model is
            evaluated as in training.

    Returns:
        CfgNode: frozen.

    Raises:
        ConfigError, DatasetError: with the file, the item and the remedy; the same in all processes.
        ConfigError: MODEL.DEVICE is unavailable, OUTPUT_DIR can't be written, or another run is using it.
    """
    cfg = load_config(args.config_file, args.opts)
    with _separate_log_handlers():
        with _same_error_in_all_processes():
            check_machine(cfg)
            check_device(cfg.MODEL.DEVICE, "MODEL.DEVICE", "set MODEL.DEVICE cpu (at the end of the command)")
            if cfg.MODEL.DEVICE == "cpu":
                keep_freed_memory()
            _hold(cfg.OUTPUT_DIR)
            _log_to(cfg.OUTPUT_DIR)
            forget_logged()
            is_preparing = comm.is_main_process() and getattr(args, "data", None) is not None
            if is_preparing:
                logger.info("The config is %s: %s", args.config_file, args.config_reason)
            data = prepare_data(args.data, cfg) if is_preparing else None
        data = comm.all_gather(data)[0]
        with _same_error_in_all_processes():
            if data is not None:
                complete_for_data(cfg, data, given=args.opts[::2], fine_tunes=args.fine_tunes)
            check_and_complete(cfg, eval_only=args.eval_only)
        if not args.eval_only:
            resolve_seed(cfg, resume=args.resume)
        cfg.freeze()
        # detectron2 opens the file to log it, so it needs a path, not a config name
        path = find_config_file(args.config_file) if args.config_file else ""
        default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": path}))
    logger.info("Keypoints of the model: %s", ", ".join(cfg.MODEL.KEYPOINT_SCHEMA.NAMES))
    if not args.eval_only:
        # detectron2's log of the config has colour escape sequences between keys and values
        logger.info("SEED is %d", cfg.SEED)
    return cfg


@contextlib.contextmanager
def _separate_log_handlers():
    """Detach the log handlers of this process's previous setup, and record those that this one attaches.

    Otherwise a second run's lines appear twice on the screen, and in the first run's ``log.txt`` too.
    """
    while _attached:
        log, handler = _attached.pop()
        log.removeHandler(handler)
    # setup_logger is cached: it attaches nothing for a folder that it has seen before
    setup_logger.cache_clear()
    others = [(log, handler) for log in _LOGGERS for handler in log.handlers]
    try:
        yield
    finally:
        now = [(log, handler) for log in _LOGGERS for handler in log.handlers]
        _attached.extend(item for item in now if item not in others)


@contextlib.contextmanager
def _same_error_in_all_processes():
    """Raise an error of one process in the block in all processes, which would otherwise wait for it.

    The block must not communicate between processes.
    """
    own_error = None
    try:
        yield
    except (ConfigError, DatasetError) as error:
        own_error = error
        _held.close()
    for failure in comm.all_gather(own_error):
        if failure is not None:
            raise failure


def _hold(folder):
    """Lock a folder against other runs; the main process does it for the whole job."""
    _held.close()
    if not comm.is_main_process() or "://" in folder:
        return
    path = os.path.join(folder, _LOCK)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "log.txt"), "a"):
            pass
        _held.enter_context(locked(path))
    except LockedError as error:
        raise ConfigError(
            f"OUTPUT_DIR {folder}: another run is using it ({error.owner}); wait for its end, or set OUTPUT_DIR to "
            f"another folder (if its machine has died: remove {path})"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"OUTPUT_DIR {folder}: {error.filename or 'it'} can't be written to ({error.strerror or error}); set "
            "OUTPUT_DIR to another folder"
        ) from error


# a process that is not killed leaves no lock file
atexit.register(_held.close)


def _log_to(folder):
    """Print dynpose's log messages, and write them to the same ``log.txt`` as detectron2's.

    detectron2's setup attaches handlers to detectron2's loggers only.
    """
    if comm.is_main_process() and folder:
        PathManager.mkdirs(folder)
    setup_logger(folder or None, distributed_rank=comm.get_rank(), name="dynpose")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train, or evaluate with ``--eval-only``.

    Args:
        args (argparse.Namespace): from detectron2's ``default_argument_parser``.

    Returns:
        dict: the last evaluation's results.

    Raises:
        CheckpointError: MODEL.WEIGHTS do not fit the model, or are incomplete with ``--eval-only``.
    """
    cfg = setup(args)
    with _held:
        return _evaluate(cfg, args) if args.eval_only else _train(cfg, args)


def _train(cfg, args):
    trainer = PoseTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    # DefaultTrainer.train returns the results only if TEST.EXPECTED_RESULTS is set
    return getattr(trainer, "_last_eval_results", {})


def _evaluate(cfg, args):
    # an evaluation has no iterations
    with watched(cfg.DISTRIBUTED.REPORT_SECONDS, lambda: 0):
        results = evaluate_exported(cfg) if is_exported(cfg.MODEL.WEIGHTS) else _evaluate_model(cfg, args)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _evaluate_model(cfg, args):
    model = PoseTrainer.build_model(cfg)
    checkpointer = PoseCheckpointer(model, save_dir=cfg.OUTPUT_DIR, complete=True, class_names=cfg.MODEL.CLASS_NAMES)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    cfg = _optimize(cfg, model, args)
    results = PoseTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results = {**results, **PoseTrainer.test_with_TTA(cfg, model)}
    return results


def _optimize(cfg, model, args):
    """Optimize a model for inference if the command says how; return the config, in which TEST.AMP is done."""
    if not hasattr(args, "precision"):
        return cfg
    amp = Precision.from_config(cfg, enabled=cfg.TEST.AMP).dtype
    precision = args.precision or str(amp or torch.float32).removeprefix("torch.")
    optimize_for_inference(model, precision, args.compile, inplace=True)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.AMP = False
    cfg.freeze()
    return cfg
