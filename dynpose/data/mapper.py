"""The dataset mapper: from a dataset dict to the model's input image and ground-truth instances.

Axes: N people in an image, K keypoints. Coordinates are continuous pixels of the augmented image.
"""

import logging
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances, Keypoints

from dynpose.config import check_image_format

from .affine import composed_matrix, matrix_to_original
from .datasets import register_datasets_from_cfg
from .ignored_regions import draw_ignored_regions, has_labelled_keypoints, segmentation_area
from .image_reading import read_image
from .person_regions import PoseAugInput
from .schema import DatasetError, KeypointSchema
from .schema_config import schema_from_cfg
from .transforms import build_pose_augmentation

__all__ = ["PoseDatasetMapper"]

logger = logging.getLogger(__name__)

# Boxes less than this wide or high after augmentation, pixels, are dropped: they may contain no pixel's centre.
_MIN_BOX_SIZE = 1.0
# Maximum number of times that the augmentation is redrawn because no people remain
_MAX_REDRAWS = 10


class PoseDatasetMapper:
    """A detectron2 dataset mapper for keypoints.

    It differs from ``detectron2.data.DatasetMapper`` where real pose data needs it: a person without labelled keypoints
    is kept, as a box; the crop keeps at least one person; ``gt_keypoints`` exists even without people; the error for an
    unreadable image names the file.

    Args:
        is_train (bool): False returns the image alone.
        augmentations (list[Augmentation]): applied in order.
        image_format (str): format of the image passed to the model, see ``detection_utils.read_image``.
        schema (KeypointSchema): schema of the data set; required for training.
        ignore_masks (bool): for training, also return the masks of people to ignore.

    Example::

        >>> loader = build_detection_train_loader(cfg, mapper=PoseDatasetMapper(cfg, is_train=True))
    """

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: list[T.Augmentation],
        image_format: str,
        schema: KeypointSchema | None = None,
        ignore_masks: bool = False,
    ):
        if is_train and schema is None:
            raise ValueError("PoseDatasetMapper needs the schema of the data set for training")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.schema = schema
        self.ignore_masks = ignore_masks
        self.flip_indices = schema.flip_indices if schema is not None else None
        mode = "training" if is_train else "inference"
        logger.info("Augmentations used in %s: %s", mode, augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments from a config; for training, its data sets are registered first."""
        check_image_format(cfg)
        if is_train:
            register_datasets_from_cfg(cfg)
        return {
            "is_train": is_train,
            "augmentations": build_pose_augmentation(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "schema": schema_from_cfg(cfg) if is_train else None,
            "ignore_masks": cfg.INPUT.IGNORE_MASKS,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image.

        Args:
            dataset_dict (dict): in detectron2's format, with lists or arrays; it is not modified. ``annotations``
                without ``keypoints`` have no labelled keypoints.

        Returns:
            dict: the same without ``annotations``, with ``image`` (C, H, W), uint8, and for training ``instances``, an
            Instances with ``gt_boxes``, ``gt_classes`` (N,), ``gt_keypoints`` (N, K, 3) and ``gt_areas`` (N,), the
            people's areas in square pixels of the augmented image: from their ``area``, else their segmentation, else
            their box. A keypoint that is not labelled or not inside the image is all zeros; any other has
            ``0 <= x < W`` and ``0 <= y < H``. Crowds and people outside the augmented image are dropped. Two fields
            keep what cropping and upright boxes lose, in pixels of the augmented image: ``gt_uncropped_keypoints``
            (N, K, 3), the labelled keypoints including those outside the image (zeros if not labelled), and
            ``gt_box_corners`` (N, 4, 2), the upper left, upper right, lower left and lower right corner of the
            annotated box, wherever the augmentation moves them.

            With ``ignore_masks``, also ``ignore_mask``, (H, W) bool: True where the augmented image shows crowds (their
            box if they have no segmentation) or people without labelled keypoints (not masked if they have no
            segmentation).

            At inference, also ``to_original`` if the image was resized by an affine warp
            (:class:`~dynpose.data.AffineResize`): (2, 3) float64 array, from continuous pixels of ``image`` to those of
            the original image. Otherwise the ratio of the sizes is sufficient.

        Raises:
            DatasetError: the image cannot be read or is not of the annotated size, or an annotation does not fit the
                schema or has a malformed segmentation that is needed.
        """
        dataset_dict = dict(dataset_dict)
        annotations = dataset_dict.pop("annotations", ())
        image = read_image(dataset_dict, self.image_format)
        dataset_dict.setdefault("height", image.shape[0])
        dataset_dict.setdefault("width", image.shape[1])
        if not self.is_train:
            aug_input = T.AugInput(image)
            transforms = self.augmentations(aug_input)
            dataset_dict["image"] = _to_tensor(aug_input.image)
            to_original = matrix_to_original(transforms)
            if to_original is not None:
                dataset_dict["to_original"] = to_original
            return dataset_dict

        annotations = [_with_floats(annotation) for annotation in annotations]
        people = [self._with_keypoints(person, dataset_dict) for person in annotations if not person.get("iscrowd")]
        # The crop of build_pose_augmentation keeps at least one person if the image has any; other augmentations, such
        # as the random affine warp, may have to be redrawn. An image that remains empty is returned as it is: every
        # loss is defined for it.
        for _ in range(1 + _MAX_REDRAWS):
            aug_input = self._augmentation_input(image, people)
            transforms = self.augmentations(aug_input)
            instances = self._transform(people, transforms, aug_input.image.shape[:2])
            if len(instances) or not people:
                break
        dataset_dict["image"] = _to_tensor(aug_input.image)
        dataset_dict["instances"] = instances
        if self.ignore_masks:
            ignored = transforms.apply_segmentation(_draw_ignored(annotations, image, dataset_dict))
            dataset_dict["ignore_mask"] = torch.from_numpy(ignored.astype(bool))
        return dataset_dict

    def _augmentation_input(self, image, people):
        """The image with the people one of whom a crop keeps: those with labelled keypoints, else all."""
        kept = [person for person in people if has_labelled_keypoints(person)] or people
        boxes = [BoxMode.convert(person["bbox"], person["bbox_mode"], BoxMode.XYXY_ABS) for person in kept]
        keypoints = np.array([person["keypoints"] for person in kept], dtype=np.float64)
        return PoseAugInput(
            image,
            boxes=np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            keypoints=keypoints.reshape(-1, self.schema.num_keypoints, 3),
        )

    def _with_keypoints(self, annotation, dataset_dict):
        """Add missing keypoints to an annotation, as not labelled, and remove its segmentation."""
        size = 3 * self.schema.num_keypoints
        keypoints = annotation.get("keypoints") or [0.0] * size
        if len(keypoints) != size:
            raise DatasetError(
                f"{dataset_dict['file_name']}: an annotation has {len(keypoints)} keypoint numbers where the "
                f"{self.schema.num_keypoints} keypoints of the model make {size}; correct the annotation or the schema"
            )
        person = {**annotation, "keypoints": keypoints}
        segmentation = person.pop("segmentation", None)  # not used in training, and slow to transform
        if person.get("area") is None or np.isnan(person["area"]):  # detectron2's loader omits it
            area = segmentation_area(segmentation, dataset_dict["height"], dataset_dict["width"])
            person["area"] = _box_area(person) if area is None else area
        return person

    def _transform(self, people, transforms, image_size):
        """Instances of the people in the augmented image of ``image_size`` (height, width)."""
        height, width = image_size
        instances = Instances(image_size)
        boxes = np.zeros((len(people), 4))
        for i, person in enumerate(people):
            # a new dictionary, because the function modifies it
            box = {name: person[name] for name in ("bbox", "bbox_mode")}
            boxes[i] = utils.transform_instance_annotations(box, transforms, image_size)["bbox"]
        uncropped = self._transform_keypoints(people, transforms)
        # detectron2 keeps points on the right and the bottom edge. Without them, the cell floor(x / stride) of every
        # labelled keypoint exists.
        inside = ((uncropped[..., :2] >= 0) & (uncropped[..., :2] < [width, height])).all(axis=-1)
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.tensor([person["category_id"] for person in people], dtype=torch.int64)
        instances.gt_keypoints = Keypoints(np.where(inside[..., None], uncropped, 0))
        instances.gt_uncropped_keypoints = torch.from_numpy(uncropped.astype(np.float32))
        corners = transforms.apply_coords(np.reshape([_box_corners(person) for person in people], (-1, 2)))
        instances.gt_box_corners = torch.from_numpy(corners.reshape(-1, 4, 2).astype(np.float32))
        # Area of a pixel of the original image, square pixels of the augmented one
        area_scale = np.abs(np.linalg.det(composed_matrix(transforms)[:, :2]))
        areas = np.array([person["area"] for person in people], dtype=np.float32)
        instances.gt_areas = torch.from_numpy(areas * np.float32(area_scale))
        return utils.filter_empty_instances(instances, by_mask=False, box_threshold=_MIN_BOX_SIZE)

    def _transform_keypoints(self, people, transforms):
        """Keypoints (N, K, 3) of the people in the augmented image and around it; zeros if they are not labelled."""
        keypoints = np.array([person["keypoints"] for person in people], dtype=np.float64)
        keypoints = keypoints.reshape(-1, self.schema.num_keypoints, 3)
        # a copy, because fvcore's mirroring modifies its argument
        points = transforms.apply_coords(keypoints[..., :2].reshape(-1, 2).copy())
        keypoints[..., :2] = points.reshape(*keypoints.shape[:2], 2)
        # as detectron2 decides which keypoints are those of the other side
        if sum(isinstance(transform, T.HFlipTransform) for transform in transforms.transforms) % 2:
            keypoints = keypoints[:, self.flip_indices]
        return np.where(keypoints[..., 2:] > 0, keypoints, 0)


def _with_floats(annotation):
    """An annotation with lists of floats: detectron2 takes no array of one box, and truncates transformed integers."""
    given = [key for key in ("bbox", "keypoints") if annotation.get(key) is not None]
    return {**annotation, **{key: np.asarray(annotation[key], np.float64).ravel().tolist() for key in given}}


def _box_area(person):
    """Area of an annotation's box, square pixels of the original image."""
    _, _, width, height = BoxMode.convert(person["bbox"], person["bbox_mode"], BoxMode.XYWH_ABS)
    return width * height


def _box_corners(person):
    """Upper left, upper right, lower left and lower right corner of an annotation's box: (4, 2)."""
    left, top, right, bottom = BoxMode.convert(person["bbox"], person["bbox_mode"], BoxMode.XYXY_ABS)
    return [[left, top], [right, top], [left, bottom], [right, bottom]]


def _draw_ignored(annotations, image, dataset_dict):
    """(H, W) uint8 mask on the original image; see :func:`draw_ignored_regions`."""
    try:
        return draw_ignored_regions(annotations, *image.shape[:2])
    except ValueError as error:
        raise DatasetError(
            f"{dataset_dict['file_name']}: an annotation's segmentation {error}; correct it or take it out"
        ) from None


def _to_tensor(image):
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
