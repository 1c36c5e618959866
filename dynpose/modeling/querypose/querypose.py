"""The QueryPose meta-architecture (Xiao et al., NeurIPS 2022).

N learned queries, each with a box and M part-level queries, pass through S stages. In each stage, a box decoder refines
the query and its box (Sparse R-CNN), and a keypoint decoder updates the part-level queries and predicts the keypoints
from them. Training matches queries and people one to one, so inference needs no NMS.

Axes: B images, N queries per image, d channels, M parts, d_p channels of part-level queries, K keypoints, S stages, U
queries whose keypoints are decoded, r x r cells of a RoI.
Boxes and keypoints are in continuous pixels of the network's input unless stated to be relative to a box.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from dynpose.config import (
    ConfigError,
    blame,
    check_at_least_one,
    check_choice,
    check_from_0_to_1,
    check_not_negative,
    set_plain,
)
from dynpose.data import KeypointSchema, model_schema
from dynpose.layers.process_mean import normalizer
from dynpose.layers.top_k import stable_top_k
from dynpose.modeling.backbone import build_backbone
from dynpose.modeling.base_models import ImageModel, pixel_statistics, sizes_as_tensor
from dynpose.modeling.detections import Detections
from dynpose.modeling.heatmap_loss import heatmap_focal_loss
from dynpose.modeling.keypoint_maps import gather_keypoints
from dynpose.modeling.parameter_rows import Owners, layer_rows, of_each
from dynpose.modeling.unchecked_boxes import is_finite
from dynpose.utils.arguments import check_one_of
from dynpose.utils.intermediate import provide

from .aux_heatmap import AuxHeatmap, aux_heatmap_targets
from .box_decoder import BoxStage, boxes_from_centers
from .flow import RealNVP, residual_log_likelihood
from .keypoint_decoder import KeypointPrediction, KeypointStage
from .losses import box_losses, class_loss, from_relative, keypoint_targets
from .matching import match_stages
from .parts import divide_into_parts
from .pooling import RoIPooler

# Maximum distance of keypoints outside the image, pixels of the network's input: the extent of its padding
_MARGIN = 32.0


class StagePrediction(NamedTuple):
    """A stage's predictions for all queries before keypoints are decoded.

    Attributes:
        logits (Tensor): (B, N, num_classes).
        boxes (Tensor): (B, N, 4).
        queries (Tensor): (B, N, d), the input of the next stage.
        features (Tensor | None): (B N, C, r, r), with which the keypoint decoder has updated ``queries``; None if it
            has not.
    """

    logits: Tensor
    boxes: Tensor
    queries: Tensor
    features: Tensor | None


@dataclass(frozen=True)
class DecodedQueries:
    """Selection of the queries whose keypoints are decoded.

    Attributes:
        index (Tensor | None): (U,) int64, ascending; query n of image b is b N + n. None = all.
        image (Tensor): (U,) int64, their positions in the batch.
    """

    index: Tensor | None
    image: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Select their rows: (B N, ...) -> (U, ...)."""
        return values if self.index is None else values[self.index]


PIPELINES = ("keypoint_decoder", "box_decoder")
DECODED_IN_TRAINING = ("all", "matched")


@dataclass(frozen=True)
class RoIPooling:
    """Options of RoI pooling.

    Attributes:
        in_features (Sequence[str]): pyramid levels that boxes are pooled from, finest first.
        keypoint_in_feature (str): the level that RoIs of keypoints are pooled from.
        resolution, keypoint_resolution (int): r of the two decoders.
        sampling_ratio (int): samples per cell along each axis.
    """

    in_features: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    keypoint_in_feature: str = "p2"
    resolution: int = 7
    keypoint_resolution: int = 14
    sampling_ratio: int = 2

    def __post_init__(self):
        set_plain(self, "in_features")


@dataclass(frozen=True)
class QueryPoseOptions:
    """Options of QueryPose's stages, training and selection.

    Attributes:
        pipeline (str): the instance query that is the next stage's input (Figure 3; Table 3): that of the
            "keypoint_decoder" (b), or that of the "box_decoder" (a).
        decode_in_training (str): decode the keypoints of "all" queries, or of "matched" ones: matched in any stage.
        activation_checkpoint (bool): recompute the activations of the stages in the backward pass.
        loss_weights (dict[str, float]): of ``class``, ``l1``, ``giou`` and ``keypoint``; the first three also weight
            the matching costs.
        focal_alpha, focal_gamma (float): of the focal loss.
        aux_heatmap_weight (float): weight of the auxiliary heatmap's loss.
        max_detections (int): people kept in inference, per image.

    Raises:
        ValueError: if ``pipeline`` or ``decode_in_training`` is not a valid choice.
    """

    pipeline: str = "keypoint_decoder"
    decode_in_training: str = "all"
    activation_checkpoint: bool = False
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {"class": 2.0, "l1": 5.0, "giou": 2.0, "keypoint": 1.0}
    )
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    aux_heatmap_weight: float = 0.5
    max_detections: int = 100

    def __post_init__(self):
        set_plain(self, "loss_weights")
        for name, choices in (("pipeline", PIPELINES), ("decode_in_training", DECODED_IN_TRAINING)):
            check_one_of(name, getattr(self, name), choices)

    @property
    def focal(self) -> dict[str, float]:
        """The arguments of the focal loss and of the focal matching cost: dict."""
        return {"alpha": self.focal_alpha, "gamma": self.focal_gamma}


@META_ARCH_REGISTRY.register()
class QueryPose(ImageModel):
    """QueryPose.

    Its parts run in sequence and can be timed separately: :meth:`preprocess_image`, :meth:`extract_features`,
    :meth:`find_people` and :meth:`locate`, stage by stage, and :meth:`select`. :meth:`detect` runs all but the first
    on tensors.

    Args:
        backbone (Backbone): provides the pooled features, with d channels.
        pooling (RoIPooling | None): None for the defaults.
        box_stages (Sequence[BoxStage]): S.
        keypoint_stages (Sequence[KeypointStage]): S.
        flow (RealNVP): the flow of the keypoint loss, shared by all stages.
        aux_heatmap (AuxHeatmap | None): called only in training, on the map that the keypoint decoder pools.
        schema (KeypointSchema): the K keypoints.
        num_queries (int): N.
        hidden_dim (int): d.
        options (QueryPoseOptions | None): None for the defaults.
        pixel_mean, pixel_std (Sequence[float]): per image channel.

    Raises:
        ValueError: if an argument is out of range or does not fit the backbone.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        pooling: RoIPooling | None = None,
        box_stages: Sequence[BoxStage],
        keypoint_stages: Sequence[KeypointStage],
        flow: RealNVP,
        schema: KeypointSchema,
        num_queries: int = 100,
        hidden_dim: int = 256,
        aux_heatmap: AuxHeatmap | None = None,
        options: QueryPoseOptions | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        if num_queries < 1 or not box_stages:
            raise ValueError(
                f"num_queries and box_stages: expected at least 1 of each, got {num_queries} and {len(box_stages)}"
            )
        if len(box_stages) != len(keypoint_stages):
            raise ValueError(
                f"box_stages and keypoint_stages must be equally many, got {len(box_stages)} and {len(keypoint_stages)}"
            )
        pooling = pooling or RoIPooling()
        shapes = backbone.output_shape()
        _check_features("pooling.in_features", pooling.in_features, shapes)
        _check_features("pooling.keypoint_in_feature", [pooling.keypoint_in_feature], shapes)
        _check_channels([*pooling.in_features, pooling.keypoint_in_feature], shapes, hidden_dim)
        self.in_features = list(pooling.in_features)
        self.keypoint_in_feature = pooling.keypoint_in_feature
        box_shapes = [shapes[name] for name in pooling.in_features]
        self.box_pooler = RoIPooler(box_shapes, pooling.resolution, pooling.sampling_ratio)
        self.keypoint_stride = shapes[pooling.keypoint_in_feature].stride
        keypoint_shapes = [shapes[pooling.keypoint_in_feature]]
        self.keypoint_pooler = RoIPooler(keypoint_shapes, pooling.keypoint_resolution, pooling.sampling_ratio)
        self.box_stages = nn.ModuleList(box_stages)
        self.keypoint_stages = nn.ModuleList(keypoint_stages)
        self.flow = flow
        self.aux_heatmap = aux_heatmap
        self.schema = schema
        self.num_queries = num_queries
        self.options = options or QueryPoseOptions()

        self.instance_queries = nn.Embedding(num_queries, hidden_dim)
        # centre, width and height relative to the image: initially the whole image, as in Sparse R-CNN
        self.proposal_boxes = nn.Embedding.from_pretrained(
            torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(num_queries, 1), freeze=False
        )
        shape = keypoint_stages[0].part_query_shape
        self.part_queries = None if shape is None else nn.Embedding(*shape)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.QUERYPOSE.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the backbone or keypoints.
        """
        _check_config(cfg)
        querypose = cfg.MODEL.QUERYPOSE
        schema = model_schema(cfg)
        with blame("MODEL.QUERYPOSE.PARTS"):
            parts = divide_into_parts(schema, querypose.PARTS)
        backbone = build_backbone(cfg)
        _check_backbone(cfg, backbone.output_shape())
        return {
            "backbone": backbone,
            "pooling": RoIPooling(
                in_features=tuple(querypose.IN_FEATURES),
                keypoint_in_feature=querypose.KEYPOINT_IN_FEATURE,
                resolution=querypose.POOLER_RESOLUTION,
                keypoint_resolution=querypose.KEYPOINT_POOLER_RESOLUTION,
                sampling_ratio=querypose.POOLER_SAMPLING_RATIO,
            ),
            "box_stages": [BoxStage.from_config(cfg) for _ in range(querypose.NUM_STAGES)],
            "keypoint_stages": _keypoint_stages(cfg, parts),
            "flow": RealNVP(),
            "aux_heatmap": _aux_heatmap(cfg, schema.num_keypoints),
            "schema": schema,
            "num_queries": querypose.NUM_QUERIES,
            "hidden_dim": querypose.HIDDEN_DIM,
            "options": QueryPoseOptions(
                pipeline=querypose.PIPELINE,
                decode_in_training=querypose.DECODE_IN_TRAINING,
                activation_checkpoint=querypose.ACTIVATION_CHECKPOINT,
                loss_weights={
                    "class": querypose.CLASS_LOSS_WEIGHT,
                    "l1": querypose.L1_LOSS_WEIGHT,
                    "giou": querypose.GIOU_LOSS_WEIGHT,
                    "keypoint": querypose.KEYPOINT_LOSS_WEIGHT,
                },
                focal_alpha=querypose.FOCAL_LOSS_ALPHA,
                focal_gamma=querypose.FOCAL_LOSS_GAMMA,
                aux_heatmap_weight=querypose.AUX_HEATMAP_LOSS_WEIGHT,
                max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            ),
            **pixel_statistics(cfg),
        }

    def compute_losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses of a batch, see :meth:`losses`.

        Args:
            batched_inputs (list[dict]): B images in detectron2's format, with ``instances`` that have gt_boxes,
                gt_classes and (where there are people) gt_keypoints.

        Returns:
            dict[str, Tensor]
        """
        images = self.preprocess_image(batched_inputs)
        gt_instances = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        return self.losses(self.extract_features(images.tensor), sizes_as_tensor(images), gt_instances)

    def detect(self, images: Tensor, image_sizes: Tensor) -> Detections:
        """Detect the people of a batch, with tensors as input and output: the seam for exporters.

        Args:
            images (Tensor): (B, 3, H, W), normalised and padded with zeros.
            image_sizes (Tensor): (B, 2) int64, height and width without padding.

        Returns:
            Detections: the same number of people for each image, see :meth:`select`.
        """
        features = self.extract_features(images)
        all_queries = self.all_queries(images.shape[0])
        part_queries = self.initial_part_queries(all_queries)
        for index, stage in enumerate(self.find_people(features, image_sizes)):
            located = self.locate(index, features, stage, all_queries, part_queries)
            part_queries = located.part_queries
            self._provide_stage(stage, located)
        shape = stage.boxes.shape[:2]
        return self.select(
            stage.logits,
            stage.boxes,
            located.keypoints.unflatten(0, shape),
            located.sigmas.unflatten(0, shape),
            image_sizes,
        )

    def _provide_stage(self, stage, located):
        """Provide what all queries of a stage predict, see :mod:`dynpose.modeling.querypose.figures`."""

        def values():
            points = from_relative(located.keypoints, stage.boxes.flatten(0, 1).float())
            return {"boxes": stage.boxes.flatten(0, 1), "keypoints": points, "sigmas": located.sigmas}

        provide(values)

    def extract_features(self, images: Tensor) -> dict[str, Tensor]:
        """Run the backbone on images (B, 3, H, W): name -> (B, d, H, W) of the used levels, in float32.

        RoIs are pooled in float32 even under autocast: RoIAlign takes boxes in the features' precision, and bfloat16
        coordinates of a large image are several pixels apart.
        """
        features = self.backbone(images)
        return {name: features[name].float() for name in {*self.in_features, self.keypoint_in_feature}}

    def all_queries(self, num_images: int) -> DecodedQueries:
        """Select all queries of ``num_images`` images."""
        return DecodedQueries(None, _image_of(num_images, self.num_queries, self.device))

    def initial_boxes(self, image_sizes: Tensor) -> Tensor:
        """The learned boxes (B, N, 4), in pixels of B images of the given height and width (B, 2)."""
        sizes = image_sizes.flip(1)[:, None].to(self.proposal_boxes.weight.dtype)
        centers, extents = self.proposal_boxes.weight.chunk(2, dim=1)
        return boxes_from_centers(centers * sizes, extents * sizes)

    def initial_part_queries(self, decoded: DecodedQueries) -> Tensor | None:
        """The learned part queries (U, M, d_p) of the decoded queries; None for a model without (Table 1)."""
        if self.part_queries is None:
            return None
        return self.part_queries.weight.expand(decoded.image.shape[0], -1, -1)

    def find_people(self, features: dict[str, Tensor], image_sizes: Tensor) -> Iterator[StagePrediction]:
        """Run the box decoders, and the part of the keypoint decoders that the next box decoder depends on.

        Args:
            features (dict[str, Tensor]): of :meth:`extract_features`.
            image_sizes (Tensor): (B, 2) int64, height and width without padding.

        Yields:
            StagePrediction: of each stage, S in total. A stage refines the boxes and queries of the previous one; no
            gradient flows through the boxes.
        """
        pyramid = [features[name] for name in self.in_features]
        keypoint_map = [features[self.keypoint_in_feature]]
        boxes = self.initial_boxes(image_sizes)
        provide(lambda: {"initial_boxes": boxes.flatten(0, 1)})
        queries = self.instance_queries.weight.expand(image_sizes.shape[0], -1, -1)
        for box_stage, keypoint_stage in zip(self.box_stages, self.keypoint_stages):
            logits, boxes, queries = self._run(self.refine_boxes, box_stage, pyramid, boxes, queries)
            updated = None
            if keypoint_stage.dynamic_mlp and self.options.pipeline == "keypoint_decoder":
                updated, queries = self._run(self.update_queries, keypoint_stage, keypoint_map, boxes.detach(), queries)
            yield StagePrediction(logits, boxes, queries, updated)
            boxes = boxes.detach()

    def locate(
        self,
        index: int,
        features: dict[str, Tensor],
        stage: StagePrediction,
        decoded: DecodedQueries,
        part_queries: Tensor | None,
    ) -> KeypointPrediction:
        """Decode the keypoints of U queries in one stage.

        Args:
            index (int): index of the stage.
            features (dict[str, Tensor]): of :meth:`extract_features`.
            stage (StagePrediction): of this stage, from :meth:`find_people`.
            decoded (DecodedQueries): U queries.
            part_queries (Tensor | None): (U, M, d_p), from the previous stage or :meth:`initial_part_queries`.

        Returns:
            KeypointPrediction: of the U queries, relative to their boxes.
        """
        keypoint_stage = self.keypoint_stages[index]
        queries = decoded.take(stage.queries.flatten(0, 1))
        if stage.features is not None:
            return self._run(_decode, keypoint_stage, decoded.take(stage.features), queries, part_queries)
        boxes = decoded.take(stage.boxes.detach().flatten(0, 1))
        keypoint_map = [features[self.keypoint_in_feature]]
        return self._run(
            self._update_and_decode, keypoint_stage, keypoint_map, boxes, decoded.image, queries, part_queries
        )

    @property
    def part_names(self) -> list[list[str]]:
        """The names of each part's keypoints, in the order of its heads, as stored in a checkpoint."""
        first = cast(KeypointStage, self.keypoint_stages[0])
        return [[self.schema.names[keypoint] for keypoint in part] for part in first.parts]

    def keypoint_rows(self, note: Mapping[str, Any]) -> list[dict[str, Owners]]:
        """Map parameter rows to keypoints or parts, see :mod:`dynpose.modeling.parameter_rows`.

        A checkpoint without stored parts, such as the released ones, is assumed to have those of PARTS "auto".
        """
        parts = self._parts_of(note)
        groups = [] if self.part_queries is None else [{"part_queries.weight": list(parts)}]
        for index, stage in enumerate(self.keypoint_stages):
            for group in cast(KeypointStage, stage).keypoint_rows(parts):
                groups.append({f"keypoint_stages.{index}.{name}": owners for name, owners in group.items()})
        if self.aux_heatmap is not None:
            groups += layer_rows({"aux_heatmap.predict": of_each(len(note["keypoints"]))})
        return groups

    def class_rows(self, number: int) -> list[dict[str, Owners]]:
        """Map parameter rows to classes, see :mod:`dynpose.modeling.parameter_rows`."""
        stages = range(len(self.box_stages))
        return [
            group for index in stages for group in layer_rows({f"box_stages.{index}.class_logits": of_each(number)})
        ]

    def _parts_of(self, note):
        """The parts of a checkpoint, as lists of keypoint indices."""
        names = note["keypoints"]
        if "parts" in note:
            return [tuple(names.index(name) for name in part) for part in note["parts"]]
        if self.part_queries is None:
            return [tuple(range(len(names)))]
        return divide_into_parts(KeypointSchema(names=names))

    def losses(
        self, features: dict[str, Tensor], image_sizes: Tensor, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses of all stages (section 3.4).

        Args:
            features (dict[str, Tensor]): of :meth:`extract_features`.
            image_sizes (Tensor): (B, 2) int64, height and width without padding.
            gt_instances (list[Instances]): B, with gt_boxes, gt_classes and (where there are people) gt_keypoints.

        Returns:
            dict[str, Tensor]: ``loss_class``, ``loss_l1``, ``loss_giou`` and ``loss_keypoint`` of the last stage, and
            those of the others with the suffixes ``_0``, ``_1``, ...; with an auxiliary heatmap,
            ``loss_aux_heatmap``.
        """
        stages = list(self.find_people(features, image_sizes))
        matches = match_stages(
            torch.stack([stage.logits for stage in stages]),
            torch.stack([stage.boxes for stage in stages]),
            gt_instances,
            weights=self.options.loss_weights,
            **self.options.focal,
        )
        decoded, matches, rows = self._to_decode(matches, len(gt_instances))

        gt_keypoints, image_index = gather_keypoints(gt_instances, self.schema.num_keypoints)
        gt_boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
        gt_classes = torch.cat([instances.gt_classes for instances in gt_instances])
        gt_sizes = image_sizes.flip(1).to(gt_boxes.dtype)[image_index]
        num_people = normalizer(len(gt_boxes), self.device)

        losses = {}
        part_queries = self.initial_part_queries(decoded)
        for index, (stage, (queries, people), located_rows) in enumerate(zip(stages, matches, rows)):
            located = self.locate(index, features, stage, decoded, part_queries)
            part_queries = located.part_queries
            boxes = stage.boxes.flatten(0, 1)[queries]
            distance, overlap = box_losses(boxes, gt_boxes[people], gt_sizes[people])
            targets, learnt = keypoint_targets(gt_keypoints[people], boxes.detach())
            likelihoods = residual_log_likelihood(
                self.flow, located.keypoints[located_rows], located.sigmas[located_rows], targets, learnt
            )
            stage_losses = {
                "class": class_loss(stage.logits, queries, gt_classes[people], **self.options.focal),
                "l1": distance,
                "giou": overlap,
                "keypoint": likelihoods.sum() / self.schema.num_keypoints,
            }
            suffix = "" if index == len(stages) - 1 else f"_{index}"
            for name, loss in stage_losses.items():
                losses[f"loss_{name}{suffix}"] = loss * self.options.loss_weights[name] / num_people
        if self.aux_heatmap is not None:
            losses["loss_aux_heatmap"] = self._aux_loss(features, gt_keypoints, gt_boxes, image_index)
        return losses

    def select(
        self, logits: Tensor, boxes: Tensor, keypoints: Tensor, sigmas: Tensor, image_sizes: Tensor
    ) -> Detections:
        """Select the highest-scored people of a stage's predictions, without threshold or NMS (section 3.4).

        Args:
            logits (Tensor): (B, N, num_classes).
            boxes (Tensor): (B, N, 4).
            keypoints (Tensor): (B, N, K, 2), relative to the box.
            sigmas (Tensor): (B, N, K, 2) in (0, 1).
            image_sizes (Tensor): (B, 2) int64, height and width.

        Returns:
            Detections: the same number of people for each image: ``max_detections``, or one for each query and class if
            these are fewer. Boxes are clipped to the image, keypoints are at most 32 pixels outside it. The third value
            of a keypoint is 1 minus the mean of its two sigmas; a person's score is the mean of these values times the
            class probability. Among equal scores, the query of the lower index comes first.
        """
        num_images, num_queries, num_classes = logits.shape
        confidences = 1 - sigmas.float().mean(dim=3)
        scores = (logits.float().sigmoid() * confidences.mean(dim=2, keepdim=True)).flatten(1)
        poses = torch.cat([from_relative(keypoints.float(), boxes.float()), confidences[..., None]], dim=3)
        scores, chosen = stable_top_k(scores, min(self.options.max_detections, num_queries * num_classes))
        queries = torch.div(chosen, num_classes, rounding_mode="floor")
        provide(lambda: {"queries": queries})
        image = _image_of(num_images, chosen.shape[1], logits.device)
        rows = image * num_queries + queries.flatten()
        limits = image_sizes.flip(1).to(boxes.dtype)[image]
        return Detections(
            image,
            _inside_image(boxes.flatten(0, 1)[rows], limits),
            scores.flatten(),
            (chosen - queries * num_classes).flatten(),
            _near_image(poses.flatten(0, 1)[rows], limits),
        )

    def _aux_loss(self, features, keypoints, boxes, image_index):
        """The loss of multi-person heatmaps (section 4.3)."""
        logits = self.aux_heatmap(features[self.keypoint_in_feature])
        targets = aux_heatmap_targets(
            keypoints,
            boxes,
            image_index,
            num_images=len(logits),
            size=tuple(logits.shape[-2:]),
            stride=self.keypoint_stride,
        )
        return heatmap_focal_loss(logits, targets) * self.options.aux_heatmap_weight

    def _to_decode(self, matches, num_images):
        """Select the queries whose keypoints are decoded in training.

        Args:
            matches (list[Matches]): S, on the CPU.
            num_images (int): B.

        Returns:
            tuple: DecodedQueries; S Matches; and for each stage the rows of its queries among the decoded ones. All on
            the model's device.
        """
        queries = [stage.queries for stage in matches]
        people = [stage.people for stage in matches]
        if self.options.decode_in_training == "all":
            queries, people = self._to_device(queries, people)
            return self.all_queries(num_images), list(zip(queries, people)), queries
        index = torch.cat(queries).unique()
        rows = [torch.searchsorted(index, stage) for stage in queries]
        (index,), queries, people, rows = self._to_device([index], queries, people, rows)
        return DecodedQueries(index, index // self.num_queries), list(zip(queries, people)), rows

    def _to_device(self, *lists):
        """Copy lists of index tensors to the model's device in one transfer."""
        sizes = [len(tensor) for tensors in lists for tensor in tensors]
        flat = iter(torch.cat([tensor for tensors in lists for tensor in tensors]).to(self.device).split(sizes))
        return [[next(flat) for _ in tensors] for tensors in lists]

    def refine_boxes(
        self, box_stage: BoxStage, pyramid: list[Tensor], boxes: Tensor, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the box decoder of one stage, including its RoI pooling.

        Args:
            box_stage (BoxStage): the stage's box decoder.
            pyramid (list[Tensor]): (B, d, H, W) of each level, finest first.
            boxes (Tensor): (B, N, 4) of the previous stage, pixels; no gradient flows through them.
            queries (Tensor): (B, N, d).

        Returns:
            tuple[Tensor, Tensor, Tensor]: class logits, boxes and queries: see :class:`BoxStage`.
        """
        return box_stage(_pool(self.box_pooler, pyramid, boxes.detach()), boxes, queries)

    def update_queries(
        self, keypoint_stage: KeypointStage, keypoint_map: list[Tensor], boxes: Tensor, queries: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the part of a stage's keypoint decoder that the next box decoder needs, including its RoI pooling.

        Args:
            keypoint_stage (KeypointStage): the stage's keypoint decoder.
            keypoint_map (list[Tensor]): the level (B, d, H, W) that its RoIs are pooled from.
            boxes (Tensor): (B, N, 4), pixels.
            queries (Tensor): (B, N, d).

        Returns:
            tuple[Tensor, Tensor]: features of the B N RoIs, and the updated queries (B, N, d).
        """
        updated, flat = keypoint_stage.update_instances(
            _pool(self.keypoint_pooler, keypoint_map, boxes), queries.flatten(0, 1)
        )
        return updated, flat.unflatten(0, queries.shape[:2])

    def _update_and_decode(self, keypoint_stage, keypoint_map, boxes, image, queries, part_queries):
        updated, queries = keypoint_stage.update_instances(self.keypoint_pooler(keypoint_map, boxes, image), queries)
        return keypoint_stage.decode(updated, queries, part_queries)

    def _run(self, function, module, *inputs):
        """Call function(module, *inputs), with activation checkpointing if enabled."""
        if not (self.options.activation_checkpoint and self.training and torch.is_grad_enabled()):
            return function(module, *inputs)
        return checkpoint(
            function,
            module,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _unchanged_statistics(module)),
        )


def _decode(keypoint_stage, features, queries, part_queries):
    return keypoint_stage.decode(features, queries, part_queries)


def _inside_image(boxes, limits):
    """Clip boxes (n, 4) to images of width and height ``limits`` (n, 2); non-finite boxes are kept."""
    return torch.where(is_finite(boxes), torch.minimum(boxes.clamp(min=0), limits.repeat(1, 2)), boxes)


def _near_image(poses, limits):
    """Clip keypoints of poses (n, K, 3) to images of width and height ``limits`` (n, 2) with a margin.

    The release clips the boxes to the image, but not the keypoints. These are relative to the unclipped boxes, which
    can span thousands of pixels in an image of a shape unseen in training. Non-finite values are kept, for the
    evaluator to count.
    """
    points, confidences = poses.split([2, 1], dim=2)
    moved = torch.minimum(points.clamp(min=-_MARGIN), limits[:, None] + _MARGIN)
    return torch.cat([torch.where(points.isfinite(), moved, points), confidences], dim=2)


def _image_of(num_images, number, device):
    """The image of each of ``number`` rows per image: (B number,) int64."""
    return torch.arange(num_images, device=device)[:, None].expand(-1, number).flatten()


def _pool(pooler, maps, boxes):
    """Pool the RoIs of boxes (B, N, 4): (B N, C, r, r)."""
    return pooler(maps, boxes.flatten(0, 1), _image_of(*boxes.shape[:2], boxes.device))


@contextmanager
def _unchanged_statistics(module):
    """Freeze the running statistics of batch normalisations, which the first forward pass has already updated."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    # keep track_running_stats: without it, the second pass would save other tensors for the gradient than the first
    states = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, num_batches in states:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches)


def _check_features(name, features, shapes):
    if not features or not set(features) <= set(shapes):
        raise ValueError(f"{name}: expected outputs of the backbone, of {list(shapes)}, got {list(features)}")


def _check_channels(features, shapes, hidden_dim):
    for feature in features:
        if shapes[feature].channels != hidden_dim:
            raise ValueError(
                f"hidden_dim: expected the number of channels of the backbone's {feature!r}, "
                f"{shapes[feature].channels}, got {hidden_dim}"
            )


def _check_backbone(cfg, shapes):
    """Check the keys against the backbone's outputs."""
    querypose = cfg.MODEL.QUERYPOSE
    with blame("MODEL.QUERYPOSE.IN_FEATURES"):
        _check_features("in_features", querypose.IN_FEATURES, shapes)
    with blame("MODEL.QUERYPOSE.KEYPOINT_IN_FEATURE"):
        _check_features("keypoint_in_feature", [querypose.KEYPOINT_IN_FEATURE], shapes)
    with blame("MODEL.QUERYPOSE.HIDDEN_DIM", "MODEL.FPN.OUT_CHANNELS"):
        _check_channels([*querypose.IN_FEATURES, querypose.KEYPOINT_IN_FEATURE], shapes, querypose.HIDDEN_DIM)


def _keypoint_stages(cfg, parts):
    """The keypoint decoders of all stages."""
    # Table 2b's baseline regresses from the features: nothing reads the queries that the last stage would update
    of_last = {"dynamic_mlp": False} if cfg.MODEL.QUERYPOSE.INTERACTION == "pool" else {}
    others = range(cfg.MODEL.QUERYPOSE.NUM_STAGES - 1)
    return [*(KeypointStage(cfg, parts=parts) for _ in others), KeypointStage(cfg, parts=parts, **of_last)]


def _aux_heatmap(cfg, num_keypoints):
    """The auxiliary head of section 4.3, if it is enabled."""
    if not cfg.MODEL.QUERYPOSE.AUX_HEATMAP:
        return None
    return AuxHeatmap(in_channels=cfg.MODEL.QUERYPOSE.HIDDEN_DIM, num_keypoints=num_keypoints)


def _check_config(cfg):
    """Validate the config before training starts; the stages check their own keys."""
    key = "MODEL.QUERYPOSE.{}".format
    check_choice(cfg, key("PIPELINE"), PIPELINES)
    check_choice(cfg, key("DECODE_IN_TRAINING"), DECODED_IN_TRAINING)
    check_at_least_one(cfg, key("NUM_QUERIES"), key("NUM_STAGES"), "TEST.DETECTIONS_PER_IMAGE")
    check_at_least_one(cfg, key("POOLER_RESOLUTION"), key("KEYPOINT_POOLER_RESOLUTION"))
    check_not_negative(cfg, key("POOLER_SAMPLING_RATIO"), key("FOCAL_LOSS_GAMMA"))
    check_not_negative(
        cfg, *(key(f"{name}_LOSS_WEIGHT") for name in ("CLASS", "L1", "GIOU", "KEYPOINT", "AUX_HEATMAP"))
    )
    check_from_0_to_1(cfg, key("FOCAL_LOSS_ALPHA"))
    querypose = cfg.MODEL.QUERYPOSE
    if querypose.INTERACTION == "pool" and querypose.DYNAMIC_MLP and querypose.PIPELINE == "box_decoder":
        raise ConfigError(
            "MODEL.QUERYPOSE.INTERACTION 'pool' with PIPELINE 'box_decoder': nothing reads the queries that the "
            "dynamic MLP updates; set DYNAMIC_MLP to False"
        )
    if cfg.TEST.SOFT_OKS_NMS.METHOD:
        raise ConfigError(
            f"TEST.SOFT_OKS_NMS.METHOD is {cfg.TEST.SOFT_OKS_NMS.METHOD!r}, but QueryPose predicts every person once "
            "and has no NMS: set it to ''"
        )
