"""detectron2's DefaultTrainer with dynpose's data, evaluator, optimizers and checkpoints."""

import os
import weakref
from collections import OrderedDict

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, hooks

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import PoseCheckpointer
from dynpose.data import PoseDatasetMapper
from dynpose.evaluation import PoseEvaluator
from dynpose.modeling.test_time_augmentation import PoseTTA

from .optimizer import build_optimizer


class PoseTrainer(DefaultTrainer):
    """Trains any dynpose model from a config.

    Example::

        >>> trainer = PoseTrainer(cfg)
        >>> trainer.resume_or_load(resume=False)
        >>> trainer.train()
    """

    def build_hooks(self):
        """detectron2's hooks, with checkpoints that say what they are, and TEST.AUG's evaluation after training."""
        self.checkpointer = PoseCheckpointer(
            self._trainer.model, self.cfg.OUTPUT_DIR, new_keypoints=True, trainer=weakref.proxy(self)
        )
        built = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:
            PoseTTA(self.cfg, self.model)  # a fault in TEST.AUG must not wait for the end of training
            plain = next(i for i, hook in enumerate(built) if isinstance(hook, hooks.EvalHook))
            built.insert(plain + 1, hooks.EvalHook(0, self._test_with_tta_and_keep_results))
        return built

    def _test_with_tta_and_keep_results(self):
        results = self.test_with_TTA(self.cfg, self.model)
        self._last_eval_results = {**self._last_eval_results, **results}
        return results

    @classmethod
    def build_train_loader(cls, cfg):
        """Batches of augmented images with their people."""
        return build_detection_train_loader(cfg, mapper=PoseDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        """The images of a data set, one by one."""
        return build_detection_test_loader(cfg, dataset_name, mapper=PoseDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        """COCO's metrics with the data set's keypoints and sigmas, written to a folder other than the usual one."""
        folder = {} if output_folder is None else {"output_dir": output_folder}
        return PoseEvaluator.from_cfg(cfg, dataset_name, **folder)

    @classmethod
    def test_with_TTA(cls, cfg, model):
        """Evaluate with test-time augmentation, as ``cfg.TEST.AUG`` describes it.

        The views are made of the original images: INPUT.MIN_SIZE_TEST is not read.

        Returns:
            OrderedDict: the results of :meth:`test`, each name followed by "_TTA". The predictions are written to
            ``<OUTPUT_DIR>/inference_TTA``, with several DATASETS.TEST to a folder of each one's name in there.
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
    def build_optimizer(cls, cfg, model):
        """See :func:`dynpose.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)
