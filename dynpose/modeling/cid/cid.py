"""The CID meta-architecture (Wang and Zhang, CVPR 2022).

People are the peaks of a centre heatmap. For each person, the feature at the peak recalibrates the map of the whole
image, spatially and by channel, and the person's keypoint heatmaps are computed from the result.

The networks of the paper and the release differ in three choices, each a config key: the weights of Eq. 11
(MODEL.CID.CHANNEL_WEIGHTS), the mean of Eq. 16 (MODEL.CID.HEATMAP_LOSS_NORM) and the coordinates that are divided into
cells (MODEL.CID.INDEX_COORDINATES).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dynpose.config import (
    ConfigError,
    blame,
    check_at_least_one,
    check_between_0_and_1,
    check_choice,
    check_choices,
    check_from_0_to_1,
    check_not_negative,
    check_odd,
    check_positive,
    set_plain,
)
from dynpose.data import KeypointSchema, model_schema
from dynpose.layers.oks_nms import oks_nms_by_group
from dynpose.modeling.backbone import build_backbone
from dynpose.modeling.base_models import ImageModel, pixel_statistics, sizes_as_tensor
from dynpose.modeling.detections import Detections
from dynpose.modeling.keypoint_maps import enclosing_boxes
from dynpose.modeling.parameter_rows import Owners, layer_rows, of_all, of_each
from dynpose.modeling.soft_oks_nms import SoftOKSNMS
from dynpose.modeling.test_time_augmentation import ViewMaps
from dynpose.modeling.unchecked_boxes import UncheckedBoxes
from dynpose.utils.arguments import check_one_of
from dynpose.utils.exporting import is_exporting, is_recording, pad_rows
from dynpose.utils.intermediate import provide

from .abstraction import InstanceAbstraction, People, own_cells
from .decoding import decode_keypoints
from .decoupling import CHANNEL_WEIGHTS, RECALIBRATIONS, FeatureDecoupling
from .losses import HEATMAP_LOSS_NORMS, contrastive_loss, focal_sums, multi_heatmap_loss, single_heatmap_loss
from .mirroring import mirror_images, mirror_maps
from .targets import build_targets, learnt_cells

# Maximum cells in the maps of people decoded at once on a CPU, so that they fit in its caches (40 people on 160 x 240
# cells, one core: 0.6 s with 2 at once, 1.35 s with 32)
_MAX_CELLS_ON_CPU = 2 * 160 * 240


@dataclass(frozen=True)
class CIDOptions:
    """Options of CID's training and decoding.

    Attributes:
        min_box_area (float): people with a smaller box are not decoupled in training, square pixels.
        min_overlap (float): sizes the Gaussians, see :func:`~dynpose.modeling.cid.targets.gaussian_radii`.
        max_instances (int): people decoupled in training, per process.
        max_instances_per_chunk (int): maximum people whose heatmaps are stored at once. In training, the backward pass
            recomputes those of further people.
        heatmap_loss_norm (str): see :func:`~dynpose.modeling.cid.losses.single_heatmap_loss`.
        temperature (float): of the contrastive loss.
        loss_weights (dict[str, float]): of ``multi_heatmap``, ``contrastive`` and ``single_heatmap``; 0 disables the
            contrastive loss (Table 1).
        smoothing (int): of the people's heatmaps, see :func:`~dynpose.modeling.cid.decoding.decode_keypoints`.
        oks_nms_thresh (float): OKS above which the lower-scored of two poses is dropped.
        soft_oks_nms (SoftOKSNMS | None): takes the place of that NMS; None = off.
        index_coordinates (bool): cells divide the pixel indices of the network's input, as in the release: they begin
            half a pixel further right and down than those of continuous pixels. Inputs and outputs are in continuous
            pixels either way. Targets are truncated as there, see
            :func:`~dynpose.modeling.cid.targets.build_targets`.

    Raises:
        ValueError: if ``heatmap_loss_norm`` is not a valid choice.
    """

    min_box_area: float = 1024.0
    min_overlap: float = 0.7
    max_instances: int = 200
    max_instances_per_chunk: int = 32
    heatmap_loss_norm: str = "person"
    temperature: float = 0.05
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {"multi_heatmap": 1.0, "contrastive": 1.0, "single_heatmap": 4.0}
    )
    smoothing: int = 3
    oks_nms_thresh: float = 0.8
    soft_oks_nms: SoftOKSNMS | None = None
    index_coordinates: bool = False

    def __post_init__(self):
        set_plain(self, "loss_weights")
        check_one_of("heatmap_loss_norm", self.heatmap_loss_norm, HEATMAP_LOSS_NORMS)


@META_ARCH_REGISTRY.register()
class CID(ImageModel):
    """CID.

    Its parts run in sequence and can be timed separately: :meth:`preprocess_image`, ``backbone``, ``iia.find_people``
    and :meth:`locate`, which runs ``gfd``. :meth:`detect` runs all but the first, on tensors. :meth:`tta_maps` and
    :meth:`tta_decode` support the paper's flip testing, ``TEST.AUG.MERGE`` "maps".

    Args:
        backbone (Backbone): provides ``in_features``.
        in_features (Sequence[str]): the single map F, the input of all heads.
        iia (InstanceAbstraction): detects the people.
        gfd (FeatureDecoupling): computes their heatmaps.
        schema (KeypointSchema): the keypoints; flip pairs are swapped in mirrored views, the sigmas are for OKS-NMS.
        options (CIDOptions | None): training and decoding options; None for the defaults.
        pixel_mean, pixel_std (Sequence[float]): per image channel.

    Raises:
        ValueError: if ``in_features`` is not exactly one output of the backbone.
    """

    # The model supports ``to_original`` in its inputs, which INPUT.AFFINE_RESIZE_TEST needs
    reads_to_original = True

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str] = ("concat",),
        iia: InstanceAbstraction,
        gfd: FeatureDecoupling,
        schema: KeypointSchema,
        options: CIDOptions | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        shapes = backbone.output_shape()
        self.in_feature = _one_feature(in_features, shapes)
        self.stride = shapes[self.in_feature].stride
        self.iia = iia
        self.gfd = gfd
        self.schema = schema
        self.options = options or CIDOptions()
        # the origin of the first cell, continuous input pixels
        self.origin = 0.5 if self.options.index_coordinates else 0.0
        self.register_buffer("flip_indices", torch.as_tensor(schema.flip_indices), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from cfg.MODEL.CID.

        Raises:
            ConfigError: if a value is out of range, not a valid choice, or does not fit the backbone.
        """
        _check_config(cfg)
        cid = cfg.MODEL.CID
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        schema = model_schema(cfg)
        with blame("MODEL.CID.IN_FEATURES"):
            channels = shapes[_one_feature(cid.IN_FEATURES, shapes)].channels
        return {
            "backbone": backbone,
            "in_features": cid.IN_FEATURES,
            "iia": InstanceAbstraction(
                channels,
                schema.num_keypoints,
                max_proposals=cid.MAX_PROPOSALS,
                score_thresh=cid.SCORE_THRESH,
                window_thresholds=cid.WINDOW_THRESHOLDS,
                smoothing=cid.SMOOTHING,
                prior_prob=cid.PRIOR_PROB,
            ),
            "gfd": FeatureDecoupling(
                channels,
                schema.num_keypoints,
                channels=cid.CHANNELS,
                recalibration=cid.RECALIBRATION,
                channel_weights=cid.CHANNEL_WEIGHTS,
                coord_scale=cid.COORD_SCALE,
                prior_prob=cid.PRIOR_PROB,
                init_std=cid.INIT_STD,
            ),
            "schema": schema,
            "options": CIDOptions(
                min_box_area=cid.MIN_BOX_AREA,
                min_overlap=cid.RADIUS_MIN_OVERLAP,
                max_instances=cid.MAX_INSTANCES,
                max_instances_per_chunk=cid.MAX_INSTANCES_PER_CHUNK,
                heatmap_loss_norm=cid.HEATMAP_LOSS_NORM,
                temperature=cid.TEMPERATURE,
                loss_weights={
                    "multi_heatmap": cid.MULTI_HEATMAP_LOSS_WEIGHT,
                    "contrastive": cid.CONTRASTIVE_LOSS_WEIGHT,
                    "single_heatmap": cid.SINGLE_HEATMAP_LOSS_WEIGHT,
                },
                smoothing=cid.SMOOTHING,
                oks_nms_thresh=cid.OKS_NMS_THRESH,
                soft_oks_nms=SoftOKSNMS.from_config(cfg),
                index_coordinates=cid.INDEX_COORDINATES,
            ),
            **pixel_statistics(cfg),
        }

    def compute_losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses of a batch, see :meth:`losses`.

        Args:
            batched_inputs (list[dict]): B images in detectron2's format: ``instances`` with gt_boxes and gt_keypoints,
                and optionally ``ignore_mask``, (H, W) bool or uint8, nonzero where the multi-person maps have no loss.

        Returns:
            dict[str, Tensor]
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)[self.in_feature]
        gt_instances = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        sizes = self.map_sizes(torch.tensor(images.image_sizes))
        return self.losses(features, sizes, gt_instances, self._ignore_masks(batched_inputs))

    def predict(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict the people of a batch of images.

        Args:
            batched_inputs (list[dict]): B images of one padded size in detectron2's format. An image that has not only
                been resized has ``to_original``, a (2, 3) affine matrix from its pixels to pixels of the
                ``height`` x ``width`` result.

        Returns:
            list[dict]: B, with ``instances``: pred_boxes (around the keypoints), scores, pred_classes and
            pred_keypoints (N, K, 3), by descending score.
        """
        images = self.preprocess_image(batched_inputs)
        detections = self.detect(images.tensor, sizes_as_tensor(images))
        return self._results(detections, batched_inputs, images.image_sizes)

    def detect(self, images: Tensor, image_sizes: Tensor, *, flip: bool = False) -> Detections:
        """Detect the people of a batch.

        Args:
            images (Tensor): (B, C, H, W), normalised, and zero beyond each image's size.
            image_sizes (Tensor): (B, 2) int64, height and width of each image before padding, pixels.
            flip (bool): average with the mirror images, as :class:`~dynpose.modeling.test_time_augmentation.PoseTTA`
                does for one size with ``TEST.AUG.FLIP`` and ``TEST.AUG.MERGE`` "maps".

        Returns:
            Detections: boxes are around the keypoints and not clipped; there is one class.

        Raises:
            ConfigError: if the model is being exported and ``TEST.SOFT_OKS_NMS`` is on.
        """
        if is_exporting():
            self.check_exportable()
        sizes = self.map_sizes(image_sizes)
        if flip:
            images = torch.cat([images, mirror_images(images, image_sizes[:, 1])])
        features = self.backbone(images)[self.in_feature]
        if flip:
            people, keypoints = self._locate_in_both_views(features, image_sizes, sizes)
        else:
            people = self.iia.find_people(features, sizes)
            keypoints = self.locate(features, people, sizes)
        return self._select(keypoints, people.image_index, image_sizes.shape[0])

    def check_exportable(self) -> None:
        """Refuse options that no graph can hold.

        Raises:
            ConfigError: ``TEST.SOFT_OKS_NMS`` is on.
        """
        soft = self.options.soft_oks_nms
        if soft is not None:
            raise ConfigError(
                f"TEST.SOFT_OKS_NMS.METHOD is {soft.method!r}, which no exported file supports, because the number of "
                "its steps depends on the people found: set it to '' to export plain OKS-NMS"
            )

    def people_at_once(self, features: Tensor) -> int:
        """Maximum people whose heatmaps inference holds at once, for a map F (B, C, H, W)."""
        at_once = self.options.max_instances_per_chunk
        if self.device.type == "cpu":
            at_once = min(at_once, max(1, _MAX_CELLS_ON_CPU // features[0, 0].numel()))
        return at_once

    def map_sizes(self, image_sizes: Tensor) -> Tensor:
        """Height and width of images (..., 2) int64 in cells of the map, rounded up."""
        return torch.div(image_sizes + (self.stride - 1), self.stride, rounding_mode="floor")

    def losses(
        self,
        features: Tensor,
        sizes: Tensor,
        gt_instances: list[Instances],
        ignore_masks: list[Tensor | None] | None = None,
        jitter: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses (Eq. 5).

        Args:
            features (Tensor): F, (B, C, H, W).
            sizes (Tensor): (B, 2) int64, height and width of each image in cells.
            gt_instances (list[Instances]): B.
            ignore_masks (list[Tensor | None]): B, see :meth:`forward`; None = nothing is ignored.
            jitter (Tensor | None): see :func:`~dynpose.modeling.cid.targets.build_targets`.

        Returns:
            dict[str, Tensor]: ``loss_multi_heatmap`` and, unless its weight is 0, ``loss_contrastive`` (L_IIA), and
            ``loss_single_heatmap`` (L_GFD).
        """
        height, width = features.shape[-2:]
        multi_targets, targets = build_targets(
            gt_instances,
            num_keypoints=self.schema.num_keypoints,
            size=(height, width),
            sizes=sizes,
            stride=self.stride,
            min_box_area=self.options.min_box_area,
            min_overlap=self.options.min_overlap,
            max_instances=self.options.max_instances,
            origin=self.origin,
            jitter=jitter,
        )
        people = People.at(features, targets.image_index, targets.cells)
        learnt = learnt_cells(ignore_masks or [None] * len(features), sizes, features, self.stride)
        losses = {"multi_heatmap": multi_heatmap_loss(self.iia(features), multi_targets, learnt)}
        if self.options.loss_weights["contrastive"]:
            losses["contrastive"] = contrastive_loss(
                people.features, people.image_index, temperature=self.options.temperature
            )
        sums = self._single_heatmap_sums(features, people, targets, own_cells(sizes, features))
        num_inside = targets.inside.sum(dim=1)
        losses["single_heatmap"] = single_heatmap_loss(sums, num_inside, self.options.heatmap_loss_norm)
        return {f"loss_{name}": loss * self.options.loss_weights[name] for name, loss in losses.items()}

    def locate(self, features: Tensor, people: People, sizes: Tensor) -> Tensor:
        """Locate the keypoints of detected people.

        Args:
            features (Tensor): F, (B, C, H, W).
            people (People): N, from ``iia.find_people``.
            sizes (Tensor): (B, 2) int64, height and width of each image in cells.

        Returns:
            Tensor: (N, K, 3) as of :func:`~dynpose.modeling.cid.decoding.decode_keypoints`, continuous input pixels.
        """
        return self._locate([features], [people], [False], sizes)

    def keypoint_rows(self, note: Mapping[str, Any]) -> list[dict[str, Owners]]:
        """Map parameter rows to keypoints, see :mod:`dynpose.modeling.parameter_rows`."""
        number = len(note["keypoints"])
        # the last multi-person map is the centre map
        centers = of_all(1)
        return layer_rows({"iia.heatmaps": of_each(number) + centers}) + layer_rows({"gfd.heatmaps": of_each(number)})

    def tta_maps(self, batched_inputs: list[dict[str, Any]]) -> dict[str, ViewMaps]:
        """Features and centres of views: :class:`~dynpose.modeling.test_time_augmentation.SupportsMapTTA`."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)[self.in_feature]
        return {
            "features": ViewMaps(features, self.stride, "stack"),
            "centers": ViewMaps(self.iia.centers(features)[:, None], self.stride, "mean"),
        }

    def tta_decode(
        self, maps: dict[str, ViewMaps], batched_inputs: list[dict[str, Any]], mirrored: list[bool]
    ) -> list[dict[str, Any]]:
        """Decode people from the maps of V views (:class:`~dynpose.modeling.test_time_augmentation.SupportsMapTTA`).

        The people are the peaks of the mean centre map. Each person's feature is read from every view at the same cell,
        and the views' heatmaps are averaged, with left and right swapped in mirrored views.
        """
        height, width = batched_inputs[0]["image"].shape[-2:]
        sizes = self.map_sizes(torch.tensor([[height, width]]))
        views = list(maps["features"].values.split(1))
        people, keypoints = self._locate_in_views(views, maps["centers"].values[:, 0], mirrored, sizes)
        detections = self._select(keypoints, people.image_index, 1)
        return self._results(detections, batched_inputs, [(height, width)])

    def _locate_in_both_views(self, features, image_sizes, sizes):
        """:meth:`_locate_in_views` of images and their mirror images, whose features (2 B, C, H, W) come second."""
        num_images = image_sizes.shape[0]
        centers = self.iia.centers(features)
        mirror = partial(mirror_maps, image_sizes=image_sizes, stride=self.stride)
        views = [features[:num_images], mirror(features[num_images:])]
        centers = (centers[:num_images] + mirror(centers[num_images:, None])[:, 0]) / 2
        return self._locate_in_views(views, centers, [False, True], sizes)

    def _locate_in_views(self, views, centers, mirrored, sizes):
        """People (N) and their keypoints (N, K, 3) from the mean centre maps and the features of V views.

        Args:
            views (list[Tensor]): V maps (B, C, H, W), mirrored back.
            centers (Tensor): (B, H, W).
            mirrored (list[bool]): V.
            sizes (Tensor): (B, 2) int64, height and width of each image in cells.
        """
        image_index, cells, scores = self.iia.peaks(centers, sizes)
        people = [People.at(features, image_index, cells, scores) for features in views]
        return people[0], self._locate(views, people, mirrored, sizes)

    def _locate(self, views, people, mirrored, sizes):
        """Keypoints (N, K, 3) from the mean heatmaps of V views.

        Args:
            views (list[Tensor]): V maps (B, C, H, W).
            people (list[People]): V times the same N people, with the features of each view.
            mirrored (list[bool]): V.
            sizes (Tensor): (B, 2) int64, height and width of each image in cells.
        """
        own = own_cells(sizes, views[0])
        shared = [self.gfd.prepare(features, own) for features in views]
        if is_exporting():
            return self._locate_one_by_one(shared, people, mirrored, sizes)
        if is_recording():
            return self._locate_at_once(shared, people, mirrored, sizes)
        keypoints = [views[0].new_zeros(0, self.schema.num_keypoints, 3, dtype=torch.float32)]
        at_once = self.people_at_once(views[0])
        for start in range(0, len(people[0]), at_once):
            chunk = slice(start, start + at_once)
            keypoints.append(self._locate_at_once(shared, [of_view[chunk] for of_view in people], mirrored, sizes))
        return torch.cat(keypoints)

    def _locate_at_once(self, shared, people, mirrored, sizes):
        """:meth:`_locate` from the ``shared`` maps of V views, all people at once."""
        heatmaps = self._heatmaps(shared[0], people[0], mirrored[0])
        for view in range(1, len(shared)):
            heatmaps = heatmaps + self._heatmaps(shared[view], people[view], mirrored[view])
        return decode_keypoints(
            heatmaps / len(shared) if len(shared) > 1 else heatmaps,
            sizes.to(heatmaps.device)[people[0].image_index],
            people[0].scores,
            self.stride,
            smoothing=self.options.smoothing,
            origin=self.origin,
        )

    def _heatmaps(self, shared, people, is_mirrored):
        heatmaps = self.gfd.decouple(shared, people)
        return heatmaps[:, self.flip_indices] if is_mirrored else heatmaps

    def _locate_one_by_one(self, shared, people, mirrored, sizes):
        """:meth:`_locate` as a loop in the graph, so that the maps fit into a CPU's caches for any number of people.

        It is a while loop and not ``scan``, which accepts no empty sequence and which OpenVINO does not read.
        """
        from torch._higher_order_ops.while_loop import while_loop

        num_people, limit = people[0].cells.shape[0], sizes.shape[0] * self.iia.max_proposals
        number = torch.ones_like(people[0].image_index).sum()
        people = [of_view.map(partial(pad_rows, size=limit)) for of_view in people]
        position = torch.arange(limit, device=number.device)[:, None, None]

        def is_left(index, keypoints):
            return index < number

        def locate(index, keypoints):
            person = [of_view[index[None]] for of_view in people]
            located = self._locate_at_once(shared, person, mirrored, sizes)
            return index + 1, torch.where(position == index, located, keypoints)

        keypoints = people[0].features.new_zeros(limit, self.schema.num_keypoints, 3)
        return while_loop(is_left, locate, (torch.zeros_like(number), keypoints))[1][:num_people]

    def _single_heatmap_sums(self, features, people, targets, own):
        """(N,) focal losses of the people's maps; the backward pass recomputes those after the first chunk."""
        shared = self.gfd.prepare(features, own)
        size, at_once = tuple(features.shape[-2:]), self.options.max_instances_per_chunk

        def of_chunk(start):
            chunk = slice(start, start + at_once)
            some, some_targets = people[chunk], targets[chunk]
            counted = some_targets.labelled[..., None, None] & own[some.image_index, None]
            return focal_sums(self.gfd.decouple(shared, some), some_targets.heatmaps(size), counted)

        # the first chunk, even without people, gives all parameters a gradient
        sums = [of_chunk(0)]
        for start in range(at_once, len(people), at_once):
            sums.append(checkpoint(of_chunk, start, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(sums)

    def _ignore_masks(self, batched_inputs):
        masks = [inputs.get("ignore_mask") for inputs in batched_inputs]
        return [mask if mask is None else mask.to(self.device) for mask in masks]

    def _select(self, keypoints, image_index, num_images):
        """Detections without those that (soft) OKS-NMS drops.

        Args:
            keypoints (Tensor): (N, K, 3).
            image_index (Tensor): (N,) int64, ascending.
            num_images (int): B.
        """
        scores = keypoints[..., 2].mean(dim=1)
        soft = self.options.soft_oks_nms
        if soft is not None:
            return _softened(self._detections(image_index, scores, keypoints), soft, num_images)
        kept = oks_nms_by_group(
            keypoints,
            scores,
            self.schema.sigmas,
            self.options.oks_nms_thresh,
            image_index,
            num_groups=num_images,
            max_per_group=self.iia.max_proposals,
        )
        provide(lambda: {"kept": kept, "grid": torch.tensor([float(self.stride), self.stride // 2 + self.origin])})
        return self._detections(image_index[kept], scores[kept], keypoints[kept])

    def _detections(self, image_index, scores, keypoints):
        # set the peak of a NaN heatmap to NaN: its cell may be outside the image
        points = torch.where(keypoints[..., 2:].isfinite(), keypoints[..., :2], float("nan"))
        # detectron2 drops degenerate boxes when it rescales results
        boxes = enclosing_boxes(points, min_size=float(self.stride))
        return Detections(image_index, boxes, scores, torch.zeros_like(image_index), keypoints)

    def _results(self, detections, batched_inputs, image_sizes):
        """Results of the batch, in the coordinates and size requested by each input."""
        results = []
        for image, (inputs, size) in enumerate(zip(batched_inputs, image_sizes)):
            instances = _instances_of(detections, image, size)
            results.append({"instances": to_result_size(instances, inputs)})
        return results


def _instances_of(detections, image, size=(0, 0)):
    """People of one image of the batch, of ``size`` (height, width): Instances."""
    of_image = detections.image == image
    return Instances(
        size,
        pred_boxes=UncheckedBoxes(detections.boxes[of_image]),
        scores=detections.scores[of_image],
        pred_classes=detections.classes[of_image],
        pred_keypoints=detections.keypoints[of_image],
    )


def _softened(detections, soft, num_images):
    """Detections after soft OKS-NMS of each image."""
    kept = [soft(_instances_of(detections, image)) for image in range(num_images)]
    return Detections(
        torch.cat([torch.full_like(people.pred_classes, image) for image, people in enumerate(kept)]),
        torch.cat([people.pred_boxes.tensor for people in kept]),
        torch.cat([people.scores for people in kept]),
        torch.cat([people.pred_classes for people in kept]),
        torch.cat([people.pred_keypoints for people in kept]),
    )


def to_result_size(instances: Instances, inputs: dict[str, Any]) -> Instances:
    """Transform predictions from pixels of the network's input to those of the result.

    Args:
        instances (Instances): with pred_boxes and pred_keypoints; their ``image_size`` is the input's.
        inputs (dict): ``height`` and ``width`` of the result, by default the input's; ``to_original``, a (2, 3) affine
            matrix, if the input has not only been resized.

    Returns:
        Instances: boxes are clipped to the result; those outside of it are dropped, as in detectron2, and non-finite
        ones are kept.
    """
    height = inputs.get("height", instances.image_size[0])
    width = inputs.get("width", instances.image_size[1])
    if "to_original" in inputs:
        points, scores = instances.pred_keypoints.split([2, 1], dim=2)
        matrix = torch.as_tensor(inputs["to_original"]).to(points)
        x0, y0, x1, y1 = instances.pred_boxes.tensor.unbind(dim=1)
        corners = torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], dim=1).unflatten(1, (4, 2))
        mapped = Instances((height, width), **instances.get_fields())
        mapped.pred_keypoints = torch.cat([_transformed(points, matrix), scores], dim=2)
        mapped.pred_boxes = UncheckedBoxes(enclosing_boxes(_transformed(corners, matrix)))
        instances = mapped
    return detector_postprocess(instances, height, width)


def _transformed(points, matrix):
    """Transform points (..., 2) by a (2, 3) matrix; elementwise in float32, since autocast rounds matrix products."""
    return (points[..., None, :] * matrix[:, :2]).sum(dim=-1) + matrix[:, 2]


def _check_config(cfg):
    """Validate MODEL.CID before training starts."""
    counts = ("CHANNELS", "MAX_INSTANCES", "MAX_INSTANCES_PER_CHUNK", "MAX_PROPOSALS")
    weights = ("MULTI_HEATMAP_LOSS_WEIGHT", "CONTRASTIVE_LOSS_WEIGHT", "SINGLE_HEATMAP_LOSS_WEIGHT")
    for check, names in (
        (check_at_least_one, counts),
        (check_positive, ("COORD_SCALE", "TEMPERATURE")),
        (check_between_0_and_1, ("PRIOR_PROB", "RADIUS_MIN_OVERLAP")),
        (check_from_0_to_1, ("SCORE_THRESH", "OKS_NMS_THRESH")),
        (check_not_negative, ("INIT_STD", "MIN_BOX_AREA", "WINDOW_THRESHOLDS", *weights)),
        (check_odd, ("SMOOTHING",)),
    ):
        check(cfg, *(f"MODEL.CID.{name}" for name in names))
    check_choice(cfg, "MODEL.CID.HEATMAP_LOSS_NORM", HEATMAP_LOSS_NORMS)
    check_choice(cfg, "MODEL.CID.CHANNEL_WEIGHTS", CHANNEL_WEIGHTS)
    check_choices(cfg, "MODEL.CID.RECALIBRATION", RECALIBRATIONS)


def _one_feature(names, shapes):
    """Return the only name in ``names``, which must be an output of the backbone."""
    if len(names) != 1 or names[0] not in shapes:
        raise ValueError(f"in_features: expected one output of the backbone, of {list(shapes)}, got {list(names)}")
    return names[0]
