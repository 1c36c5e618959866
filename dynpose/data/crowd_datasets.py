"""CrowdPose and OCHuman, the benchmarks of crowded scenes, as built-in data sets.

Importing this module registers ``crowdpose_{train,val,trainval,test}`` and ``ochuman_{val,test}`` in detectron2's data
set folder (``DETECTRON2_DATASETS``). It opens no file: keypoints, limbs and sigmas are known, so that a model can be
set up for them without their files.

The modules that read files are imported when one is read: one of them may be what imports detectron2.data, after which
this module is imported.
"""

import os
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog

from .schema import COCO_PERSON, CROWDPOSE_PERSON, DatasetError

__all__ = ["register_crowd_datasets"]

_CATEGORY_ID = 1


def register_crowd_datasets(root: str) -> None:
    """Register CrowdPose and OCHuman with detectron2's DatasetCatalog and MetadataCatalog.

    Both use the files and folders of the authors' downloads::

        <root>/crowdpose/json/crowdpose_{train,val,trainval,test}.json
        <root>/crowdpose/images/
        <root>/ochuman/annotations/ochuman_coco_format_{val,test}_range_0.00_1.00.json
        <root>/ochuman/images/

    ``crowdpose_trainval`` is read from the files of train and val if its file is missing.

    Args:
        root (str): the folder that holds ``crowdpose`` and ``ochuman``.
    """
    for split in ("train", "val", "trainval", "test"):
        _register(
            f"crowdpose_{split}",
            CROWDPOSE_PERSON,
            json_file=os.path.join(root, "crowdpose", "json", f"crowdpose_{split}.json"),
            image_root=os.path.join(root, "crowdpose", "images"),
            keypoint_protocol="crowdpose",
            how_to_get=_how_to_get("crowdpose", "https://github.com/Jeff-sjtu/CrowdPose"),
        )
    MetadataCatalog.get("crowdpose_trainval").set(parts=("crowdpose_train", "crowdpose_val"))
    for split in ("val", "test"):
        _register(
            f"ochuman_{split}",
            COCO_PERSON,
            json_file=os.path.join(root, "ochuman", "annotations", f"ochuman_coco_format_{split}_range_0.00_1.00.json"),
            image_root=os.path.join(root, "ochuman", "images"),
            keypoint_protocol="coco",
            how_to_get=_how_to_get("ochuman", "https://github.com/liruilong940607/OCHumanApi"),
        )


def _how_to_get(folder, url):
    return (
        f"download images and annotations ({url}), lay them out as in docs/datasets.md, and set the environment "
        f"variable DETECTRON2_DATASETS to the folder that holds {folder}/"
    )


def _register(name, schema, **metadata):
    DatasetCatalog.register(name, _Benchmark(name))
    schema.to_metadata(MetadataCatalog.get(name))
    MetadataCatalog.get(name).set(
        evaluator_type="pose",
        thing_classes=["person"],
        thing_dataset_id_to_contiguous_id={_CATEGORY_ID: 0},
        **metadata,
    )


@dataclass(frozen=True)
class _Benchmark:
    """The function in DatasetCatalog that returns the dicts of a data set."""

    name: str

    def __call__(self, *, on_remarks=None, **options):
        """Load the dicts; options are those of :func:`~dynpose.data.coco_json.load_pose_json`."""
        from .coco_json import load_pose_json
        from .datasets import check_dataset_files, remarks_of_protocol

        check_dataset_files(self.name)
        metadata = MetadataCatalog.get(self.name)
        image_root, records = metadata.image_root, []
        for pose_file in self.read_files(on_fault=lambda fault: None):
            options["on_remarks"] = remarks_of_protocol(metadata.keypoint_protocol, pose_file.json_file, on_remarks)
            records += load_pose_json(pose_file.json_file, image_root, **options)
        return records

    def read_files(self, **options):
        """Read images and annotations, without the image folder; options are those of
        :func:`~dynpose.data.coco_json.read_pose_file`.

        Returns:
            list[PoseFile]: one, or those of the parts.
        """
        from .coco_json import read_pose_file
        from .datasets import annotation_files

        pose_files = []
        for json_file in annotation_files(self.name):
            pose_files.append(read_pose_file(json_file, **options))
            _check_category(pose_files[-1], MetadataCatalog.get(self.name))
        return pose_files


def _check_category(pose_file, metadata):
    """Check that the file agrees with the metadata, which were set without opening it."""
    ids = [category_id for item in pose_file.classes for category_id in item.category_ids]
    names = pose_file.classes[0].keypoints
    if ids == [_CATEGORY_ID] and names == tuple(metadata.keypoint_names):
        return
    raise DatasetError(
        f"{pose_file.json_file}: data set {metadata.name!r} has one category of id {_CATEGORY_ID} with the "
        f"{len(metadata.keypoint_names)} keypoints {', '.join(metadata.keypoint_names)}; this file has category id "
        f"{', '.join(map(str, ids))} with the {len(names)} keypoints {', '.join(names)}. Put the original file there, "
        f"or register this one under another name in DATASETS.POSE"
    )


# detectron2's root
register_crowd_datasets(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
