"""detectron2's DefaultTrainer with dynpose's data, evaluator, optimizers and checkpoints."""

import weakref

import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import PoseCheckpointer
from dynpose.data import PoseDatasetMapper
from dynpose.evaluation import PoseEvaluator


class PoseTrainer(DefaultTrainer):
    """Trains any dynpose model from a config.

    Example::

        >>> trainer = PoseTrainer(cfg)
        >>> trainer.resume_or_load(resume=False)
        >>> trainer.train()
    """

    def build_hooks(self):
        """detectron2's hooks, with checkpoints that say what they are."""
        self.checkpointer = PoseCheckpointer(
            self._trainer.model, self.cfg.OUTPUT_DIR, new_keypoints=True, trainer=weakref.proxy(self)
        )
        return super().build_hooks()

    @classmethod
    def build_train_loader(cls, cfg):
        """Batches of augmented images with their people."""
        return build_detection_train_loader(cfg, mapper=PoseDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        """The images of a data set, one by one."""
        return build_detection_test_loader(cfg, dataset_name, mapper=PoseDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        """COCO's metrics with the data set's keypoints and sigmas."""
        return PoseEvaluator.from_cfg(cfg, dataset_name)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Build SOLVER.OPTIMIZER: "SGD" (detectron2's) or "ADAMW".

        Raises:
            ValueError: for another name.
        """
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER == "ADAMW":
            params = get_default_optimizer_params(
                model,
                base_lr=cfg.SOLVER.BASE_LR,
                weight_decay=cfg.SOLVER.WEIGHT_DECAY,
                weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
                bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
                weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
            )
            return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(params, lr=cfg.SOLVER.BASE_LR)
        raise ValueError(f"SOLVER.OPTIMIZER must be 'SGD' or 'ADAMW', got {cfg.SOLVER.OPTIMIZER!r}")
