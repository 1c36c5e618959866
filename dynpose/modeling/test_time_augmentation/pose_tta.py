"""A drop-in wrapper that adds test-time augmentation to a pose model."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import nn

from dynpose.config import ConfigError, blame, check_at_least_one, check_choice
from dynpose.data import KeypointSchema, schema_from_cfg
from dynpose.data.schema import infer_flip_pairs
from dynpose.modeling.base_models import check_reads_to_original, reads_to_original
from dynpose.utils.arguments import check_one_of
from dynpose.utils.distributed import unwrap_ddp

from .averaging import SupportsMapTTA, average_maps
from .merging import has_predictions, merge_poses, mirror_poses, split_by_finiteness
from .views import ViewMaker, complete_inputs

logger = logging.getLogger(__name__)

_MERGES = ("poses", "maps")
_WEIGHTS = {"positive": lambda confidence: confidence, "logit": torch.sigmoid}


class PoseTTA(nn.Module):
    """A pose model with test-time augmentation; its input and output are those of the model.

    ``PoseTTA(cfg, model)`` replaces detectron2's ``GeneralizedRCNNWithTTA(cfg, model)``, which does not support
    keypoints. As there, inputs should be the original images: a resized image is resized again.

    Args:
        model (nn.Module): its inputs and outputs have detectron2's formats; it predicts ``scores``, ``pred_classes``,
            ``pred_keypoints`` (N, K, 3) and optionally ``pred_boxes`` in pixels of the given ``height`` x ``width``.
            A DistributedDataParallel is unwrapped.
        schema (KeypointSchema): the keypoints; its flip pairs are swapped in the mirrored views, its sigmas define the
            OKS of two poses. Keypoints without a flip pair keep their index.
        min_sizes (Sequence[int]): lengths of the views' shorter side, pixels. Duplicate sizes are used once.
        max_size (int): upper limit of their longer side, pixels.
        affine_resize (bool): make the views by :class:`~dynpose.data.AffineResize`, as ``INPUT.AFFINE_RESIZE_TEST``
            does without augmentation, for models that read ``to_original``.
        flip (bool): add the mirror image of every view.
        merge (str): "poses" (:func:`merge_poses`) or "maps" (:class:`SupportsMapTTA`).
        match_oks (float): for "poses", minimum OKS of predictions of the same person in two views.
        max_detections (int): for "poses", people kept per image.
        confidence (str): for "poses", the kind of a predicted keypoint's third value: "positive" (a probability, or
            another number >= 0 such as Keypoint R-CNN's score, which can exceed 1) or "logit" (any number; its sigmoid
            weights the keypoint).
        image_format (str): "BGR" or "RGB", for inputs that have a file name instead of an image.

    Raises:
        ValueError: if an argument is out of range, ``flip`` is set but keypoints whose names differ only in left/right
            are not a pair of the schema, or the model does not support the maps or ``to_original`` that are needed.

    Example::

        >>> predictor = PoseTTA(model.eval(), schema=COCO_PERSON, min_sizes=(640, 800, 1000), max_size=1666)
        >>> predictor([{"file_name": "street.jpg"}])[0]["instances"].pred_keypoints.shape
        torch.Size([4, 17, 3])
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        *,
        schema: KeypointSchema,
        min_sizes: Sequence[int],
        max_size: int,
        affine_resize: bool = False,
        flip: bool = True,
        merge: str = "poses",
        match_oks: float = 0.7,
        max_detections: int = 100,
        confidence: str = "positive",
        image_format: str = "BGR",
    ):
        super().__init__()
        model = unwrap_ddp(model)
        if not min_sizes or min(min_sizes) < 1 or max_size < 1:
            raise ValueError(
                "min_sizes and max_size: expected one or more lengths and one length of at least 1 pixel, got "
                f"{min_sizes} and {max_size}"
            )
        check_one_of("merge", merge, _MERGES)
        if merge == "maps":
            _check_provides_maps(model)
        if affine_resize and not reads_to_original(type(model)):
            raise ValueError(
                f"affine_resize: expected False for {type(model).__name__}, which does not read to_original"
            )
        if not 0 < match_oks <= 1:
            raise ValueError(f"match_oks: expected a number above 0 and at most 1, got {match_oks}")
        check_one_of("confidence", confidence, tuple(_WEIGHTS))
        if flip:
            _check_pairs(schema)
        self.model = model
        self.schema = schema
        self.views = ViewMaker(min_sizes, max_size, affine_resize=affine_resize, flip=flip)
        self.merge = merge
        self.match_oks = match_oks
        self.max_detections = max_detections
        self.confidence = confidence
        self.image_format = image_format
        self.flip_indices = torch.as_tensor(schema.flip_indices)
        # A new module is in training mode, and inference_on_dataset would also leave the model in it
        self.training = model.training

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Read the arguments from ``cfg.TEST.AUG``, ``cfg.TEST.DETECTIONS_PER_IMAGE`` and ``cfg.INPUT``.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the model or keypoints.
        """
        aug = cfg.TEST.AUG
        schema = schema_from_cfg(cfg)
        _check_config(cfg, unwrap_ddp(model), schema)
        if aug.FLIP and cfg.INPUT.RANDOM_FLIP != "horizontal":
            logger.warning(
                "TEST.AUG.FLIP is True, but INPUT.RANDOM_FLIP is %r: a model that was trained without mirrored images "
                "confuses left and right in them. Set TEST.AUG.FLIP False.",
                cfg.INPUT.RANDOM_FLIP,
            )
        return {
            "model": model,
            "schema": schema,
            "min_sizes": aug.MIN_SIZES,
            "max_size": aug.MAX_SIZE,
            "affine_resize": cfg.INPUT.AFFINE_RESIZE_TEST,
            "flip": aug.FLIP,
            "merge": aug.MERGE,
            "match_oks": aug.MATCH_OKS,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "image_format": cfg.INPUT.FORMAT,
        }

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict the people of a batch of images.

        Args:
            batched_inputs (list[dict]): B, in detectron2's format: ``image`` (3, H, W) or ``file_name``; ``height`` and
                ``width`` of the result, by default the image's.

        Returns:
            list[dict]: B, with ``instances``. For "poses", only the fields named in the class, by descending score;
            predictions with NaN or infinite values in any view are not merged and come last, unchanged, for the
            evaluator to count. For "maps", the instances that the model decodes.

        Raises:
            ValueError: if an image is too narrow to be resized, an input has precomputed ``proposals`` or has been
                resized by an affine warp, or the model's keypoints are not those of the schema.
        """
        run = self._average_maps if self.merge == "maps" else self._merge_poses
        return [run(complete_inputs(inputs, self.image_format)) for inputs in batched_inputs]

    def view_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Sizes of an image's views, without their mirror images.

        Args:
            height, width (int): of the image, pixels.

        Returns:
            list[tuple[int, int]]: unique (height, width), in the order of ``min_sizes``.

        Raises:
            ValueError: if a side would have no pixels.
        """
        return list(self.views.resizes(height, width))

    def _average_maps(self, inputs):
        return average_maps(self.model, self.views.make(inputs, largest_first=True), self.flip_indices)

    def _merge_poses(self, inputs):
        predictions, not_finite = [], []
        for views in self.views.make(inputs):
            # Given the original size, the model itself rescales its predictions to it
            outputs = [output["instances"] for output in self.model(views.inputs)]
            self._check_predictions(outputs)
            for output in [outputs[0], *(mirror_poses(output, self.flip_indices) for output in outputs[1:])]:
                finite, others = split_by_finiteness(output)
                predictions.append(finite)
                not_finite += others
        merged = merge_poses(
            predictions, self.schema.sigmas, match_oks=self.match_oks, weight_of=_WEIGHTS[self.confidence]
        )
        people = [merged[: self.max_detections]] if merged.get_fields() else []
        return {"instances": Instances.cat([*people, *not_finite]) if people or not_finite else merged}

    def _check_predictions(self, outputs):
        for instances in filter(has_predictions, outputs):
            if not instances.has("pred_keypoints"):
                raise ValueError(
                    f"{type(self.model).__name__} predicts no pred_keypoints: test-time augmentation of poses needs "
                    "a pose model (of detectron2's R-CNNs, one with a keypoint head)"
                )
            shape = tuple(instances.pred_keypoints.shape[1:])
            if shape != (self.schema.num_keypoints, 3):
                raise ValueError(
                    f"the model predicts {shape[0]} keypoints of {shape[1]} numbers, the schema has "
                    f"{self.schema.num_keypoints} (of x, y and confidence): pass the schema that the model was trained "
                    "with"
                )
            if self.confidence == "positive" and (instances.pred_keypoints[..., 2] < 0).any():
                raise ValueError(
                    f"{type(self.model).__name__} predicts negative keypoint confidences, which cannot weight the mean "
                    "of several views: if they are logits, pass PoseTTA(..., confidence='logit')"
                )


def _check_config(cfg, model, schema):
    """Validate the config before the first image is processed."""
    aug = cfg.TEST.AUG
    if not aug.MIN_SIZES:
        raise ConfigError("TEST.AUG.MIN_SIZES must be one or more lengths in pixels, got none")
    check_at_least_one(cfg, "TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.DETECTIONS_PER_IMAGE")
    check_choice(cfg, "TEST.AUG.MERGE", _MERGES)
    if not 0 < aug.MATCH_OKS <= 1:
        raise ConfigError(f"TEST.AUG.MATCH_OKS must be above 0 and at most 1, got {aug.MATCH_OKS}")
    if aug.MERGE == "maps":
        with blame("TEST.AUG.MERGE"):
            _check_provides_maps(model)
    if cfg.MODEL.LOAD_PROPOSALS:
        raise ConfigError(
            "TEST.AUG cannot use precomputed proposals, which are of one view: set MODEL.LOAD_PROPOSALS False"
        )
    if cfg.INPUT.AFFINE_RESIZE_TEST:
        check_reads_to_original(type(model))
    if aug.FLIP:
        with blame("TEST.AUG.FLIP", "MODEL.KEYPOINT_SCHEMA.FLIP_PAIRS"):
            _check_pairs(schema)


def _check_provides_maps(model):
    if not isinstance(model, SupportsMapTTA):
        raise ValueError(
            f"merge: {type(model).__name__} provides no maps (methods tta_maps and tta_decode); set it to 'poses'"
        )


def _check_pairs(schema):
    """Refuse to mirror keypoints that look like a flip pair but are not declared as one."""
    paired = {name for pair in schema.flip_pairs for name in pair}
    missing = [pair for pair in infer_flip_pairs(schema.names) if not paired & set(pair)]
    if missing:
        raise ValueError(
            f"flip: mirrored views would average {missing[0][0]!r} with {missing[0][1]!r}: {len(missing)} left/right "
            "pairs by name are not flip pairs of the schema; add them to the schema, or set it to False"
        )
