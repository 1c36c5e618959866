"""Ground truth for COCO's evaluation code, put in order.

pycocotools and faster-coco-eval trust an annotation file: a missing ``area``, ``iscrowd`` or ``num_keypoints`` is a
KeyError in the middle of an evaluation, an annotation whose id is 0 counts as missed even where it is found, and an
image id that is a string stops one of the two. What is read here has every field, in an in-memory copy; the data set
itself is left as it is.
"""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from dynpose.data import DatasetError
from dynpose.data.coco_json import read_coco_json
from dynpose.data.datasets import annotation_files, check_dataset_files, read_crowd_indices

from .crowdpose import AREA_OF_BOX, group_by_crowding

__all__ = ["GroundTruth", "read_ground_truth"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruth:
    """The images and annotations of a data set.

    Args:
        source (str): where it comes from, for messages.
        image_ids (list): the data set's ids, sorted. Image ``i`` of the list has id ``i + 1`` in ``annotations``.
        category_ids (list): the data set's id of each class that is evaluated, in the order of the classes.
        annotations (list[dict] | None): COCO's keypoint annotations, each with ``id`` (counted from 1), ``image_id``
            (see above), ``category_id`` (the data set's), ``iscrowd``, ``bbox`` (XYWH), ``area``, ``keypoints`` (3K
            numbers, COCO's pixel indices) and ``num_keypoints``. None if the data set has no annotation.
        protocol (str): how it is evaluated, "coco" or "crowdpose".
        image_groups (dict[str, list]): for "crowdpose", the data set's ids of its easy, medium and hard images.
    """

    source: str
    image_ids: list
    category_ids: list
    annotations: list | None
    protocol: str = "coco"
    image_groups: dict = field(default_factory=dict)

    @cached_property
    def image_numbers(self):
        """dict: the data set's image id -> the ``image_id`` that stands for it in ``annotations``."""
        return {image_id: i for i, image_id in enumerate(self.image_ids, start=1)}


def read_ground_truth(dataset_name, num_keypoints):
    """Read the ground truth of a registered data set.

    What is mended, as far as it can be:

    - no ``keypoints``: none labelled, so that the annotation is neither found nor missed, as in COCO;
    - no ``num_keypoints``: the number of keypoints with visibility above 0;
    - no ``iscrowd``: 0;
    - no ``bbox``: the box around the labelled keypoints;
    - no ``area``: that of the box. COCO's is that of the segment, some half of it, so that OKS comes out higher than
      with COCO's: this is warned of;
    - ids of annotations are counted anew;
    - annotations of images that are not listed, and of categories that are no class of the data set, are left out.

    With CrowdPose's protocol (``keypoint_protocol`` of the metadata is "crowdpose") the area is 0.53 times that of the
    box, whatever the annotation says.

    Args:
        dataset_name (str): registered; read from its metadata's ``json_file``, or, where it has none, from its dicts
            in detectron2's standard format.
        num_keypoints (int): K.

    Returns:
        GroundTruth

    Raises:
        DatasetError: the file cannot be read, an item cannot be mended, or CrowdPose's protocol finds no crowd index.
    """
    metadata = MetadataCatalog.get(dataset_name)
    protocol = metadata.get("keypoint_protocol", "coco")
    check_dataset_files(dataset_name, images=False)
    json_files = annotation_files(dataset_name)
    if json_files:
        source, data = " and ".join(json_files), _data_from_files(json_files)
    else:
        source = f"data set {dataset_name!r}"
        data = _data_from_dicts(DatasetCatalog.get(dataset_name), metadata)
    image_ids = _image_ids(data["images"], source)
    category_ids = _category_ids(metadata, data, source)
    annotations, image_groups = None, {}
    if data.get("annotations"):  # an empty list is how some test sets say that they have none
        annotations = _clean_annotations(
            data["annotations"], image_ids, category_ids, num_keypoints, source, crowdpose=protocol == "crowdpose"
        )
        if protocol == "crowdpose":
            image_groups = group_by_crowding(read_crowd_indices(data["images"], source))
    return GroundTruth(
        source=source,
        image_ids=image_ids,
        category_ids=category_ids,
        annotations=annotations,
        protocol=protocol,
        image_groups=image_groups,
    )


def _data_from_files(json_files):
    """The content of a file, or of several for the parts of a data set, which share their categories."""
    data, *others = [read_coco_json(json_file, required=("images",)) for json_file in json_files]
    for other in others:
        for key in ("images", "annotations"):
            data[key] = data.get(key, []) + other.get(key, [])
    return data


def _data_from_dicts(records, metadata):
    """detectron2's dicts in COCO's format.

    detectron2's own ``convert_to_coco_dict`` is not used because it shifts the keypoints of the dicts in place: where
    the data set keeps its dicts, every call shifts them again.
    """
    category_of = {i: i for i in range(len(metadata.get("thing_classes", ())))}
    category_of.update({i: c for c, i in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()})
    annotations = []
    for record in records:
        for annotation in record.get("annotations", ()):
            # from continuous pixels to COCO's indices
            keypoints = [float(v) - (0.5 if i % 3 < 2 else 0) for i, v in enumerate(annotation.get("keypoints", ()))]
            bbox = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
            annotations.append(
                {
                    **{key: annotation[key] for key in ("iscrowd", "area", "num_keypoints") if key in annotation},
                    "image_id": record["image_id"],
                    "category_id": category_of.get(annotation["category_id"], annotation["category_id"]),
                    "bbox": [float(v) for v in bbox],
                    "keypoints": keypoints,
                }
            )
    return {
        "images": [{"id": record["image_id"], "crowdIndex": record.get("crowdIndex")} for record in records],
        "annotations": annotations,
        "categories": [{"id": category_id} for category_id in category_of.values()],
    }


def _image_ids(images, source):
    ids = {image.get("id") for image in images}
    if not all(isinstance(image_id, (int, str)) for image_id in ids):
        raise DatasetError(f"{source}: an image has no 'id'; give each image a number of its own")
    # sorted as COCO's code does, since the order decides between detections of equal score
    return sorted(ids, key=lambda i: (isinstance(i, str), i))


def _category_ids(metadata, data, source):
    """The data set's category id of each class, as detectron2 numbers the classes."""
    class_of = metadata.get("thing_dataset_id_to_contiguous_id")
    if class_of is not None:
        return sorted(class_of, key=class_of.get)
    ids = sorted({category.get("id") for category in data.get("categories", ())} - {None})
    if not ids:
        raise DatasetError(
            f"{source}: it has no categories; add them, or set thing_dataset_id_to_contiguous_id in the metadata of "
            f"data set {metadata.name!r}"
        )
    return ids


def _clean_annotations(annotations, image_ids, category_ids, num_keypoints, source, *, crowdpose):
    image_numbers = {image_id: i for i, image_id in enumerate(image_ids, start=1)}
    cleaned, mended = [], Counter()
    for position, annotation in enumerate(annotations):
        item = f"{source}: annotation {annotation.get('id', f'number {position}')!r}"
        category_id = _category_id(annotation, category_ids, item)
        if category_id not in category_ids:
            continue
        if annotation.get("image_id") not in image_numbers:
            mended["are of images that are not listed and were left out"] += 1
            continue
        keypoints = _keypoints(annotation, num_keypoints, item)
        labelled_count = annotation.get("num_keypoints") if annotation.get("keypoints") else 0
        if labelled_count is None:
            labelled_count = sum(v > 0 for v in keypoints[2::3])
        bbox, area = annotation.get("bbox"), annotation.get("area")
        if not bbox:
            bbox = _box_around(keypoints, item)
            mended["have no 'bbox': the box around their keypoints stands in"] += 1
        elif len(bbox) != 4 or not _all_finite(bbox):
            raise DatasetError(f"{item}: bbox is {bbox!r}; write [x, y, width, height] in pixels")
        if crowdpose:
            area = bbox[2] * bbox[3] * AREA_OF_BOX
        elif area is None or not _all_finite([area]):
            area = bbox[2] * bbox[3]
            mended["have no 'area': that of the box stands in, which makes OKS higher than COCO's area would"] += 1
        cleaned.append(
            {
                "id": len(cleaned) + 1,
                "image_id": image_numbers[annotation["image_id"]],
                "category_id": category_id,
                "iscrowd": int(bool(annotation.get("iscrowd"))),
                "bbox": bbox,
                "area": area,
                "keypoints": keypoints,
                "num_keypoints": labelled_count,
            }
        )
    for what, count in mended.items():
        logger.warning("%s: %d of %d annotations %s", source, count, len(annotations), what)
    return cleaned


def _category_id(annotation, category_ids, item):
    if annotation.get("category_id") is not None:
        return annotation["category_id"]
    if len(category_ids) > 1:
        raise DatasetError(
            f"{item} has no 'category_id'; add it, since the data set has {len(category_ids)} categories"
        )
    return category_ids[0]


def _keypoints(annotation, num_keypoints, item):
    keypoints = annotation.get("keypoints") or [0] * (3 * num_keypoints)
    if len(keypoints) != 3 * num_keypoints:
        raise DatasetError(
            f"{item}: keypoints has {len(keypoints)} numbers where the data set's {num_keypoints} keypoints make "
            f"{3 * num_keypoints}; write x, y, visibility for each, three zeros where a keypoint is not labelled"
        )
    if not _all_finite(keypoints):
        raise DatasetError(f"{item}: keypoints are not all finite numbers; correct them")
    return keypoints


def _all_finite(values):
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _box_around(keypoints, item):
    xs = [x for x, v in zip(keypoints[0::3], keypoints[2::3]) if v > 0]
    ys = [y for y, v in zip(keypoints[1::3], keypoints[2::3]) if v > 0]
    if not xs:
        raise DatasetError(f"{item} has neither 'bbox' nor labelled keypoints; add a bbox or take the annotation out")
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
