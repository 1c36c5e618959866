"""detectron2's DefaultTrainer with dynpose's data, evaluator, optimizers and checkpoints."""

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.utils.data import DataLoader

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import blame, check_choice
from dynpose.data import PoseDatasetMapper
from dynpose.data.loader import PoseTrainLoader, build_pose_train_loader
from dynpose.evaluation import PoseEvaluator
from dynpose.modeling.build import check_meta_architecture
from dynpose.modeling.test_time_augmentation import PoseTTA
from dynpose.utils.random_state import preserved_rng

from .accumulation import check_ims_per_process
from .best import BestHook, StoppedEarly, check_best_checkpoint, is_of_average
from .checkpointing import CheckpointHook, TrainingCheckpointer, keep_weights
from .ema import EMAHook, ModelEMA
from .evaluating import EvaluationHook, Evaluations
from .launching import data_parallel
from .metrics_file import MetricsHook
from .nonfinite import NonFiniteGuard
from .optimizer import build_optimizer
from .precision import Precision, compile_dense_parts
from .records import write_records
from .resuming import ResumeHook, load_trainer_state, trainer_state
from .signals import StopHook, StopRequest, stop_signals
from .step import TrainingStep
from .watchdog import watched
from .writers import build_event_writers

logger = logging.getLogger(__name__)


class PoseTrainer(DefaultTrainer):
    """Trains any dynpose model from a config.

    Example::

        >>> trainer = PoseTrainer(cfg)
        >>> trainer.resume_or_load(resume=False)
        >>> trainer.train()
    """

    def __init__(self, cfg: CfgNode):
        # the steps of DefaultTrainer.__init__, except for the training step and for processes without a GPU
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = TrainingStep(
            data_parallel(model, cfg.SOLVER.FIND_UNUSED_PARAMETERS),
            self.build_train_loader(cfg),
            optimizer,
            precision=Precision.from_config(cfg),
            ims_per_pass=check_ims_per_process(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.ema = ModelEMA(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self._trainer.guard = NonFiniteGuard(self._trainer.model, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_NONFINITE_STEPS)
        self.register_hooks([self._trainer.guard, *self.build_hooks()])

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks, with self-describing checkpoints, evaluations that run once (also of the averaged weights
        and with TEST.AUG), the best weights, and early stopping.
        """
        self.checkpointer = TrainingCheckpointer(
            self._trainer.model,
            self.cfg.OUTPUT_DIR,
            kept=self.cfg.SOLVER.CHECKPOINTS_KEPT,
            new_keypoints=True,
            class_names=self.cfg.MODEL.CLASS_NAMES,
            trainer=weakref.proxy(self),
        )
        check_best_checkpoint(self.cfg, self.build_evaluator)
        built = [hook for hook in super().build_hooks() if not isinstance(hook, hooks.PeriodicCheckpointer)]
        evaluation = next(i for i, hook in enumerate(built) if isinstance(hook, hooks.EvalHook))
        built[evaluation : evaluation + 1] = [*self._build_restart_hooks(), *self._build_evaluation_hooks()]
        if self.ema is not None:
            # before the average is saved and evaluated
            built.insert(0, EMAHook(self._ema_cfg().OUTPUT_DIR))
        return built

    def _build_restart_hooks(self):
        """Hooks before the evaluations: resuming, checkpoints, and stopping on a signal."""
        self._resume = ResumeHook(self.cfg.SEED)
        self._metrics = MetricsHook(self.cfg.OUTPUT_DIR)
        self._stop_request = StopRequest()
        self._checkpoints = CheckpointHook(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        return [self._resume, self._metrics, self._checkpoints, StopHook(self._stop_request, self._checkpoints.save)]

    def _build_evaluation_hooks(self):
        evaluations = Evaluations(self.cfg.OUTPUT_DIR, self.cfg)
        parts, last_parts = {"weights": lambda: self.test(self.cfg, self.model)}, {}
        if self.ema is not None:
            parts["EMA"] = self._test_ema
        if self.cfg.TEST.AUG.ENABLED:
            PoseTTA(self.cfg, self.model)  # report a fault in TEST.AUG before training, not after it
            last_parts["TTA"] = lambda: self.test_with_TTA(self.cfg, self.model)
            if self.ema is not None:
                last_parts["TTA of EMA"] = self._test_ema_with_tta
        built = [EvaluationHook(self.cfg.TEST.EVAL_PERIOD, evaluations, parts, last_parts, self._keep_results)]
        metric, patience = self.cfg.SOLVER.BEST_METRIC, self.cfg.SOLVER.EARLY_STOPPING_PATIENCE
        if metric:
            built.append(BestHook(metric, patience, evaluations, self._save_best, self._checkpoints.save))
        return built

    def build_writers(self) -> list[EventWriter]:
        """detectron2's (log, metrics.json, TensorBoard), and those of EVENT_WRITERS."""
        return [*super().build_writers(), *build_event_writers(self.cfg)]

    def resume_or_load(self, resume: bool = True) -> None:
        """detectron2's, but skipping corrupt checkpoints; see :class:`TrainingCheckpointer`."""
        checkpoint = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        self._metrics.resumes = resume
        if checkpoint:
            self._resume.checkpoint = checkpoint
            self._metrics.state = checkpoint.get("metrics", {})
            self.start_iter = checkpoint["iteration"] + 1

    def train(self) -> dict[str, Any] | None:
        """detectron2's; SIGTERM and SIGUSR1 end it with a checkpoint and RESUMABLE_EXIT_CODE.

        If SOLVER.EARLY_STOPPING_PATIENCE ends it before SOLVER.MAX_ITER, training ends as after the last iteration.
        """
        write_records(self.cfg, self.start_iter)
        iteration = lambda: getattr(self, "iter", self.start_iter)  # noqa: E731
        with stop_signals(self._stop_request), watched(self.cfg.DISTRIBUTED.REPORT_SECONDS, iteration):
            try:
                return super().train()
            except StoppedEarly:
                logger.info("Training has stopped early; the last evaluation and the final files follow")
        if len(self.cfg.TEST.EXPECTED_RESULTS) and comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def state_dict(self) -> dict[str, Any]:
        """See :func:`dynpose.engine.resuming.trainer_state`."""
        return trainer_state(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :func:`dynpose.engine.resuming.load_trainer_state`."""
        load_trainer_state(self, state_dict)

    def _test_ema(self):
        return _with_suffix(self.test(self._ema_cfg(), self.ema.model), "_EMA")

    def _test_ema_with_tta(self):
        return _with_suffix(self.test_with_TTA(self._ema_cfg(), self.ema.model), "_EMA")

    def _keep_results(self, results):
        self._last_eval_results = results

    def _save_best(self, iterations, value):
        model = self.ema.model if self.ema is not None and is_of_average(self.cfg.SOLVER.BEST_METRIC) else self.model
        note = {"iteration": iterations - 1, "best": {self.cfg.SOLVER.BEST_METRIC: value}}
        keep_weights(model, self.cfg.OUTPUT_DIR, "model_best", self.cfg.MODEL.CLASS_NAMES, **note)

    def _ema_cfg(self):
        """The config with a separate output folder for the results of the averaged weights."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "ema")
        return cfg

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """detectron2's, with SOLVER.CHANNELS_LAST and SOLVER.COMPILE applied."""
        check_meta_architecture(cfg)
        model = super().build_model(cfg)
        if cfg.SOLVER.CHANNELS_LAST:
            model.to(memory_format=torch.channels_last)
        if cfg.SOLVER.COMPILE:
            compile_dense_parts(model, training=True)
        return model

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """detectron2's, under autocast if TEST.AMP is set; training is unaffected."""
        with preserved_rng(), Precision.from_config(cfg, enabled=cfg.TEST.AMP).autocast():
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> PoseTrainLoader:
        """Batches of augmented images and their instances, starting at any iteration."""
        return build_pose_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        """The images of a data set, one at a time."""
        return build_detection_test_loader(cfg, dataset_name, mapper=PoseDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """COCO's metrics with the data set's keypoints and sigmas; ``output_folder`` replaces the default folder."""
        folder = {} if output_folder is None else {"output_dir": output_folder}
        return PoseEvaluator.from_config(cfg, dataset_name, **folder)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
        """Evaluate with the test-time augmentation of ``cfg.TEST.AUG``.

        The views are made from the original images: INPUT.MIN_SIZE_TEST is ignored.

        Returns:
            OrderedDict: the results of :meth:`test`, each name followed by "_TTA". The predictions are written to
            ``<OUTPUT_DIR>/inference_TTA``, with several DATASETS.TEST to a subfolder named after each.
        """
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        names = cfg.DATASETS.TEST
        evaluators = [
            cls.build_evaluator(cfg, name, output_folder=os.path.join(folder, name) if len(names) > 1 else folder)
            for name in names
        ]
        original_size = cfg.clone()
        original_size.defrost()
        original_size.INPUT.MIN_SIZE_TEST = 0
        results = cls.test(original_size, PoseTTA(cfg, model), evaluators)
        return OrderedDict((f"{name}_TTA", result) for name, result in results.items())

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`dynpose.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """detectron2's, with a ConfigError for invalid choices."""
        check_choice(cfg, "SOLVER.WARMUP_METHOD", ("linear", "constant"))
        with blame("SOLVER.LR_SCHEDULER_NAME"):
            return super().build_lr_scheduler(cfg, optimizer)


def _with_suffix(results, suffix):
    return {f"{name}{suffix}": result for name, result in results.items()}
