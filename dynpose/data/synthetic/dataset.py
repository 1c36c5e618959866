"""Writing the synthetic people in COCO's keypoint format, and registering them with detectron2."""

import dataclasses
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from dynpose.utils.locking import locked, share, stop_sharing

from ..coco_json import load_pose_json, read_coco_json
from ..schema import COCO_PERSON, DatasetError
from .render import CATEGORY_ID, SPLITS, SyntheticPose

__all__ = ["register_synthetic_pose", "register_synthetic_pose_from_cfg", "write_synthetic_pose"]

logger = logging.getLogger(__name__)

_GENERATOR = "dynpose.data.synthetic"
# Increase it whenever the same parameters give other images or annotations: older folders are then rewritten.
_VERSION = 1
_JPEG_QUALITY = 95
_REMEDY = "set DATASETS.SYNTHETIC.ROOT to another folder, or remove it"


def write_synthetic_pose(root: Path | str, split: str, num_images: int, params: SyntheticPose) -> tuple[str, str]:
    """Write one split of the data set, unless it already exists.

    A split with other parameters is replaced, unless another process uses it. Any number of processes may call this at
    once: one writes, the others wait. An unfinished split of a killed process is completed or rewritten.

    Args:
        root (str): output folder for ``<split>.json`` and ``<split>/*.jpg``.
        split (str): "train" or "val".
        num_images (int): number of images.
        params (SyntheticPose): parameters of the images.

    Returns:
        tuple[str, str]: the annotation file and the folder of its images.

    Raises:
        DatasetError: the file or the folder exists but was not written by this function, or another process uses a
            split with other parameters.

    Example::

        >>> json_file, image_root = write_synthetic_pose("synthetic", "val", 100, SyntheticPose(seed=1))
    """
    if split not in SPLITS:
        raise DatasetError(f"synthetic people: split is {split!r}, but must be one of {', '.join(SPLITS)}")
    root = os.fspath(root)
    json_file, image_root = os.path.join(root, f"{split}.json"), os.path.join(root, split)
    info = {
        "description": "Synthetic people with the keypoints of COCO",
        "generator": _GENERATOR,
        "version": _VERSION,
        "split": split,
        "num_images": num_images,
        "parameters": dataclasses.asdict(params),
    }
    # JSON has no tuples; convert them for the comparison with a file
    info = json.loads(json.dumps(info))
    users = f"{json_file}.users"
    # Checked without the lock first, so that a read-only folder can still be used
    if _is_written(json_file, image_root, info):
        share(users)
        # it may have been replaced before the shared lock was held
        if _is_written(json_file, image_root, info):
            return json_file, image_root
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{root}: the folder cannot be created ({error.strerror}); {_REMEDY}") from error
    with locked(f"{json_file}.lock", waits=True):
        _finish_earlier(json_file, image_root)
        if not _is_written(json_file, image_root, info):
            if stop_sharing(users) and os.path.exists(json_file):
                raise DatasetError(
                    f"{json_file}: another process uses these images, which were written with other parameters "
                    f"(DATASETS.SYNTHETIC); wait until it ends, or {_REMEDY}"
                )
            _write(json_file, image_root, info, params)
        share(users)
    return json_file, image_root


def _is_written(json_file, image_root, info):
    if not os.path.exists(json_file):
        return False
    data = read_coco_json(json_file)
    if data.get("info") != info:
        return False
    present = set(os.listdir(image_root)) if os.path.isdir(image_root) else set()
    return all(image["file_name"] in present for image in data["images"])


def _finish_earlier(json_file, image_root):
    """Rename the annotation file, if an earlier call was killed after renaming the image folder."""
    partial = _partial(json_file)
    if os.path.exists(json_file) or not os.path.isdir(image_root) or not os.path.isfile(partial):
        return
    # the file is complete, since it is written before the image folder is renamed
    if _is_ours(read_coco_json(partial)):
        os.replace(partial, json_file)


def _partial(path):
    """The name of a file or folder until it is complete."""
    return f"{path}.partial"


def _is_ours(data):
    info = data.get("info")
    return isinstance(info, dict) and info.get("generator") == _GENERATOR


def _write(json_file, image_root, info, params):
    _remove_earlier(json_file, image_root)
    start = time.perf_counter()
    partial = _partial(image_root)
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    images, annotations = [], []
    for index in range(info["num_images"]):
        pixels, people = params.render(index, info["split"])
        name = f"{index:06d}.jpg"
        if not cv2.imwrite(os.path.join(partial, name), pixels[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)):
            raise OSError(f"cannot write {os.path.join(partial, name)}")
        height, width = params.image_size
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for person in people:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **person})
    category = {
        "id": CATEGORY_ID,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO_PERSON.names),
        "skeleton": [[a + 1, b + 1] for a, b in COCO_PERSON.skeleton],
    }
    with open(_partial(json_file), "w", encoding="utf-8") as f:
        json.dump({"info": info, "images": images, "annotations": annotations, "categories": [category]}, f)
    # The annotation file is renamed last: if it exists, the images are complete.
    os.replace(partial, image_root)
    os.replace(_partial(json_file), json_file)
    logger.info(
        "Wrote %d images with %d synthetic people to %s in %.0f s",
        len(images),
        len(annotations),
        image_root,
        time.perf_counter() - start,
    )


def _remove_earlier(json_file, image_root):
    """Remove the output of an earlier call, and nothing else."""
    if os.path.exists(json_file):
        if not _is_ours(read_coco_json(json_file)):
            raise DatasetError(
                f"{json_file}: the file is not an annotation of synthetic people and is not replaced; {_REMEDY}"
            )
        logger.info("%s has other parameters or lacks images: it is rewritten", json_file)
        # the annotation file last: it identifies the origin of the images
        shutil.rmtree(image_root, ignore_errors=True)
        os.remove(json_file)
    elif os.path.exists(image_root):
        raise DatasetError(f"{image_root}: the folder exists without {json_file} and is not replaced; {_REMEDY}")


def register_synthetic_pose(root: Path | str, *, num_train: int = 1000, num_val: int = 100, **params: Any) -> None:
    """Register ``synthetic_pose_train`` and ``synthetic_pose_val`` with detectron2.

    The files are written when a data set is first used; its metadata then get ``json_file`` and ``image_root``. A
    second call replaces the registration of the first.

    Args:
        root (str): folder for the files.
        num_train, num_val (int): number of images.
        **params: parameters of :class:`SyntheticPose`.

    Raises:
        DatasetError: a parameter is outside its range, or one of the names is taken by another data set.

    Example::

        >>> register_synthetic_pose("synthetic", num_train=500, image_size=(192, 192))
        >>> dicts = DatasetCatalog.get("synthetic_pose_train")
    """
    pose = SyntheticPose(**params)
    for split, num_images in zip(SPLITS, (num_train, num_val)):
        name = f"synthetic_pose_{split}"
        dataset = _SyntheticDataset(name, os.fspath(root), split, num_images, pose)
        if name in DatasetCatalog:
            if DatasetCatalog[name] == dataset:
                continue
            if not isinstance(DatasetCatalog[name], _SyntheticDataset):
                raise DatasetError(f"a data set {name!r} is already registered; choose another name for it")
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        metadata = MetadataCatalog.get(name)
        COCO_PERSON.to_metadata(metadata)
        metadata.set(
            evaluator_type="pose", thing_classes=["person"], thing_dataset_id_to_contiguous_id={CATEGORY_ID: 0}
        )
        DatasetCatalog.register(name, dataset)


def register_synthetic_pose_from_cfg(cfg: CfgNode) -> None:
    """Register the synthetic people that a config describes: see :func:`register_synthetic_pose`.

    Args:
        cfg (CfgNode): a detectron2 config with dynpose's keys; ``cfg.DATASETS.SYNTHETIC`` is read.
    """
    node = cfg.DATASETS.SYNTHETIC
    register_synthetic_pose(
        node.ROOT or os.path.join(cfg.OUTPUT_DIR, "synthetic"),
        num_train=node.NUM_TRAIN,
        num_val=node.NUM_VAL,
        seed=node.SEED,
        image_size=node.IMAGE_SIZE,
        people=node.PEOPLE,
        crowding=node.CROWDING,
        scale=node.SCALE,
        truncation=node.TRUNCATION,
    )


@dataclass(frozen=True)
class _SyntheticDataset:
    """The function in DatasetCatalog that returns the dicts of a split."""

    name: str
    root: str
    split: str
    num_images: int
    params: SyntheticPose

    def __call__(self):
        json_file, image_root = write_synthetic_pose(self.root, self.split, self.num_images, self.params)
        MetadataCatalog.get(self.name).set(json_file=json_file, image_root=image_root)
        return load_pose_json(json_file, image_root)
