"""`dynpose check-data` says of a config what train_net.py does with it: a first step, or what stops it before."""

import io
import logging
import math

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image
from small_runs import GONE, NAMES, QUICK, annotation, make_run, run_check_data, take_first_step

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.data import DatasetError

PERSON = annotation()["annotations"][0]
CATEGORY = annotation()["categories"][0]
OF_ANIMALS = [{**CATEGORY, "id": 5, "name": "cat"}, {**CATEGORY, "id": 9, "name": "dog"}]
# cats in the one image, a dog in the other
ANIMALS = {"both.categories": OF_ANIMALS, "both.annotations.2.category_id": 9}
FILES = {"a.png": (64, 48), "night/b.png": (40, 56)}
CROWDPOSE = {"test_entry.protocol": "crowdpose"}
FCPOSE = {
    "config._BASE_": f"{QUICK}/fcpose_small.yaml",
    **{"config.MODEL.META_ARCHITECTURE": "FCPose", "config.MODEL.FPN.OUT_CHANNELS": 32},
    **{"config.MODEL.FCPOSE.BASIS.CONVS_DIM": 16, "config.INPUT.CROP.ENABLED": False},
    "config.INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
}
CID = {
    "config._BASE_": f"{QUICK}/cid_small.yaml",
    **{"config.MODEL.META_ARCHITECTURE": "CID", "config.INPUT.AFFINE.SIZE": [64, 64]},
}
CID_SCHEDULE = {
    **{"config.SOLVER.MAX_EPOCHS": 140, "config.SOLVER.STEPS_EPOCHS": [90, 120]},
    **{"config.SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "config.SOLVER.WARMUP_ITERS": 0},
}


def with_keypoints(number):
    """A sound annotation without names whose people have so many keypoints, all at one place but for the first."""
    points = [30, 10, 2] + [20, 30, 1] * (number - 1)
    return {
        "both.categories.0": {"id": 5, "name": "person"},
        **{"both.annotations.*.keypoints": points, "both.annotations.*.num_keypoints": number},
    }


def nested(keypoints):
    return [keypoints[i : i + 3] for i in range(0, len(keypoints), 3)]


def without_visibility(keypoints):
    return [value for i, value in enumerate(keypoints) if i % 3 < 2]


def outside(keypoints):
    return [value + 100 if i % 3 == 0 else value for i, value in enumerate(keypoints)]


def unlabelled(keypoints):
    return [0] * len(keypoints)


def shares(keypoints):
    return [value if i % 3 == 2 else value / 64 for i, value in enumerate(keypoints)]


def and_one_more(**changes):
    return lambda people: [*people, {**PERSON, "id": 21, **changes}]


def split_fields(person):
    """A person of COCO-WholeBody with a labelled body and labelled feet."""
    fields = {
        "foot_kpts": [20, 40, 2] * 6,
        "face_kpts": [0] * 204,
        "lefthand_kpts": [0] * 63,
        "righthand_kpts": [0] * 63,
    }
    return {**person, **fields, "keypoints": [20, 30, 2] * 17, "num_keypoints": 17}


def weights(method, number=1):
    """The content of a checkpoint of a method, and the config that reads it."""
    content = io.BytesIO()
    note = {"method": method, "keypoints": NAMES, "classes": ["person"]}
    torch.save({"model": {"weight": torch.ones(number)}, "dynpose": note}, content)
    return {"files": {**FILES, "weights.pth": content.getvalue()}, "config.MODEL.WEIGHTS": "images/weights.pth"}


def turned(width, height):
    """The bytes of an image whose EXIF orientation exchanges width and height."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(Image.new("RGB", (width, height)), exif=exif)


def png(image, **options):
    content = io.BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


def own_dicts(root, *, first_id=0, box=list, keypoints=list, number=int, sizes=True, **changes):
    """Two images with one person each, as a user's own function gives them."""
    person = {
        "bbox": box([10.0, 5.0, 50.0, 41.0]),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": number(0),
        "keypoints": keypoints([30.5, 10.5, 2, 14.5, 20.5, 2, 46.5, 38.5, 1]),
        "iscrowd": number(0),
        **changes,
    }
    dicts = []
    for i in range(2):
        size = {"width": number(64), "height": number(48)} if sizes else {}
        dicts.append({"file_name": f"{root}/a.png", "image_id": number(first_id + i), **size, "annotations": [person]})
    return dicts


def own(function=own_dicts, metadata=None, **options):
    """The changes of a data set that a user has registered, for training and evaluation."""
    metadata = {"keypoint_names": NAMES, "keypoint_flip_map": [], "thing_classes": ["person"], **(metadata or {})}
    return {
        "functions": {"own": (lambda root: function(root, **options), metadata)},
        **{"config.DATASETS.TRAIN": ["own"], "config.DATASETS.TEST": ["own"], "config.DATASETS.POSE": []},
    }


def some_without_category(root):
    return own_dicts(root) + own_dicts(root, first_id=2, category_id=None)


def raising(root):
    raise KeyError("no such column")


# name of a case -> its changes
SOUND = {
    "as it is": {},
    # areas and boxes
    "area 0": {"both.annotations.*.area": 0},
    "area 1": {"both.annotations.*.area": 1},
    "area -5": {"both.annotations.*.area": -5},
    "area of the image": {"both.annotations.*.area": 64 * 48},
    "area NaN": {"both.annotations.*.area": math.nan},
    "area as text": {"both.annotations.*.area": "700"},
    "no area": {"both.annotations.*.area": GONE},
    "no boxes": {"both.annotations.*.bbox": GONE},
    "boxes []": {"both.annotations.*.bbox": []},
    "boxes null": {"both.annotations.*.bbox": None},
    "boxes [0, 0, 0, 0]": {"both.annotations.*.bbox": [0, 0, 0, 0]},
    "boxes without width": {"both.annotations.*.bbox": lambda box: [*box[:2], 0, box[3]]},
    "boxes without height and area": {
        "both.annotations.*.bbox": lambda box: [*box[:3], 0],
        "both.annotations.*.area": GONE,
    },
    "one keypoint, its box without extent": {
        "both.annotations.*.keypoints": [20, 10, 2, 0, 0, 0, 0, 0, 0],
        "both.annotations.*.bbox": [20, 10, 0, 0],
        "both.annotations.*.area": 0,
    },
    "a box that leaves the image": {"both.annotations.0.bbox": [-20, -20, 200, 200]},
    # keypoints
    "num_keypoints 0": {"both.annotations.*.num_keypoints": 0},
    "num_keypoints 3": {"both.annotations.*.num_keypoints": 3},
    "no num_keypoints": {"both.annotations.*.num_keypoints": GONE},
    "a person without keypoints": {"both.annotations.0.keypoints": GONE},
    "a person with keypoints []": {"both.annotations.0.keypoints": []},
    "a person not labelled": {"both.annotations.0.keypoints": unlabelled},
    "one person with labelled keypoints": {
        "train.annotations.0.keypoints": unlabelled,
        "train.annotations.1.keypoints": unlabelled,
    },
    "a person outside the image": {"both.annotations.0.keypoints": outside},
    "one person inside": {
        "train.annotations.0.keypoints": outside,
        "train.annotations.1.keypoints": outside,
    },
    "keypoints at (0, 0)": {"both.annotations.*.keypoints": [0, 0, 2, 14, 20, 2, 46, 38, 1]},
    "nested keypoints": {"both.annotations.*.keypoints": nested},
    "keypoints of x and y": {"both.annotations.*.keypoints": without_visibility},
    "keypoints null where not labelled": {"both.annotations.1.keypoints": [12, 8, 2, 6, 20, 1, None, None, 0]},
    "a person twice": {"both.annotations": and_one_more()},
    "a person without anything": {"both.annotations": and_one_more(bbox=None, keypoints=[], area=0)},
    "two of three are crowds": {"train.annotations.0.iscrowd": 1, "train.annotations.1.iscrowd": 1},
    "no iscrowd": {"both.annotations.*.iscrowd": GONE},
    "no person in the test set": {"test.annotations": []},
    # classes
    "two categories of a name": {
        "both.categories": [CATEGORY, {**CATEGORY, "id": 9}],
        "both.annotations.2.category_id": 9,
    },
    "a category without keypoints": {
        "both.categories": [CATEGORY, {"id": 9, "name": "ball"}],
        "both.annotations": and_one_more(category_id=9, keypoints=[]),
    },
    "one of two categories": {**ANIMALS, "both_entries.category": "cat"},
    "one of two with other keypoints": {
        "both.categories": [CATEGORY, {"id": 9, "name": "car", "keypoints": ["front"]}],
        "both.annotations": and_one_more(category_id=9, keypoints=[1, 1, 2]),
        "both_entries.category": "person",
    },
    "a list of categories": {**ANIMALS, "both_entries.category": ["dog", "cat"]},
    "all as one": {**ANIMALS, "both_entries.category": "all as one"},
    "all as one for CID": {**ANIMALS, "both_entries.category": "all as one", **CID},
    "two classes": {**ANIMALS},
    "two classes for FCPose": {**ANIMALS, **FCPOSE, "config.MODEL.FCOS.NUM_CLASSES": 2},
    "two classes in another order": {**ANIMALS, "test.categories.0.id": 9, "test.categories.1.id": 5},
    "a test set without one of two classes": {
        **ANIMALS,
        "test.categories": OF_ANIMALS[:1],
        "test.annotations.2.category_id": 5,
    },
    "one class by two names": {"test.categories.0.name": "human"},
    "classes given in another order": {**ANIMALS, "config.MODEL.CLASS_NAMES": ["dog", "cat"]},
    "no category_id, one category": {"both.annotations.*.category_id": GONE},
    # names
    "names of the user": {
        **{"both.categories.0.keypoints": GONE, "both.categories.0.skeleton": GONE},
        "both_entries.keypoints": NAMES,
    },
    "names of a schema": {**with_keypoints(17), "both_entries.schema": "coco"},
    "fields of COCO-WholeBody": {
        **{"both.annotations.*": split_fields, "both.categories.0": {"id": 5, "name": "person"}},
        "both_entries.schema": "coco_wholebody",
    },
    "names that have sides but no pairs": {"both.categories.0.keypoints": ["nose", "left_wrist", "right_paw"]},
    "no pairs, no mirroring": {
        "both.categories.0.keypoints": ["a", "b", "c"],
        "config.INPUT.RANDOM_FLIP": "none",
    },
    "a 0-based skeleton": {"both.categories.0.skeleton": [[0, 1], [0, 2]]},
    "a skeleton of other keypoints": {"both.categories.0.skeleton": [[1, 2], [1, 17]]},
    "test keypoints in another order": {
        "test.categories.0.keypoints": NAMES[::-1],
        "config.TEST.MAP_KEYPOINTS": True,
    },
    # how the file is written
    "whole floats": {
        **{"both.images.0.id": 7.0, "both.annotations.0.image_id": 7.0, "both.images.0.width": 64.0},
        **{"both.images.0.height": 48.0, "both.annotations.*.id": float, "both.annotations.*.iscrowd": 0.0},
        **{"both.annotations.*.category_id": 5.0, "both.categories.0.id": 5.0},
    },
    "no ids of annotations": {"both.annotations.*.id": GONE},
    "one id for all annotations": {"both.annotations.*.id": 1},
    "ids of images are text": {
        "both.images": lambda images: [{**image, "id": str(image["id"])} for image in images],
        "both.annotations.*.image_id": str,
    },
    "backslashes": {"both.images.1.file_name": "night\\b.png"},
    "a byte-order mark": {"encoding": "utf-8-sig"},
    "UTF-16": {"encoding": "utf-16"},
    "an image twice": {
        "both.images": lambda images: [*images, {**images[0], "id": 8}],
        "both.annotations": and_one_more(image_id=8),
    },
    "the user's home": {"train_entry.json_file": "~/train.json", "test_entry.image_root": "~/images"},
    "EXIF orientation applied": {"files": {**FILES, "a.png": turned(48, 64)}},
    # evaluation
    "crowd indices above 1": {**CROWDPOSE, "test.images.*.crowdIndex": 3.02},
    "limits of the evaluation": {"config.TEST.MAX_DETS.KEYPOINTS": 1, "config.TEST.MAX_DETS.BOXES": 1},
    "sigmas": {"both_entries.sigmas": [0.03, 0.05, 0.05], "config.TEST.KEYPOINT_OKS_SIGMAS": [0.1, 0.1, 0.1]},
    "an expected result": {"config.TEST.EXPECTED_RESULTS": [["keypoints", "AP", 50.0, 50.0]]},
    "no test set": {"config.DATASETS.TEST": []},
    # training
    "fewer images than a batch": {"config.SOLVER.IMS_PER_BATCH": 7},
    "epochs": {"config.SOLVER.MAX_EPOCHS": 140, "config.SOLVER.STEPS_EPOCHS": [90, 120]},
    "epochs shorter than a batch, without steps": {
        **{
            "config.SOLVER.MAX_EPOCHS": 140,
            "config.SOLVER.STEPS_EPOCHS": [90, 120],
            "config.SOLVER.IMS_PER_BATCH": 100,
        },
        "config.SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
    },
    "a batch in parts": {"config.SOLVER.IMS_PER_BATCH": 3, "config.SOLVER.IMS_PER_PROCESS": 2},
    "weights": weights("OneWeight"),
    "CID's epochs": {**CID, **CID_SCHEDULE, "config.SOLVER.IMS_PER_BATCH": 7},
    "a crop": {"config.INPUT.CROP.ENABLED": True, "config.INPUT.CROP.SIZE": [1.0, 0.1]},
    "averaged weights": {"config.SOLVER.EMA.ENABLED": True},
    "a broken test image that is not checked for": {
        "config.DATASETS.CHECK_IMAGES": False,
        "files": {**FILES, "c.png": b"no image"},
        "test.images": lambda images: [*images, {"id": 8, "file_name": "c.png", "width": 64, "height": 48}],
    },
    "a second training set without people": {
        "config.DATASETS.TRAIN": ["people_train", "people_test"],
        "config.DATASETS.TEST": ["people_train"],
        "test.annotations.*.keypoints": unlabelled,
    },
    # a user's own function
    "dicts of lists": own(),
    "dicts of arrays": own(box=np.array, keypoints=np.array, number=np.int64),
    "dicts without sizes": {**own(sizes=False), "config.DATALOADER.ASPECT_RATIO_GROUPING": False},
    "dicts with a box around nothing": own(bbox=[0, 0, 0, 0]),
    "dicts of which some have no category_id": own(some_without_category),
}

# name of a case -> its changes, and a part of the message
FAULTY = {
    # no person to train on
    "everybody outside the image": ({"train.annotations.*.keypoints": outside}, "there is no person to train on"),
    "everybody a crowd": ({"train.annotations.*.iscrowd": 1}, "no image is left to train on"),
    "everybody a crowd, unfiltered": (
        {"train.annotations.*.iscrowd": 1, "config.DATALOADER.FILTER_EMPTY_ANNOTATIONS": False},
        "there is no person to train on",
    ),
    "no person labelled": ({"train.annotations.*.keypoints": unlabelled}, "there is no person to train on"),
    "no person labelled, filtered": (
        {"train.annotations.*.keypoints": unlabelled, "config.MODEL.KEYPOINT_ON": True},
        "no image is left to train on",
    ),
    "no keypoints": ({"train.annotations.*.keypoints": GONE}, "there is no person to train on"),
    "everybody's box outside": ({"train.annotations.*.bbox": [200, 10, 9, 9]}, "there is no person to train on"),
    "no annotations": ({"train.annotations": []}, "no image is left to train on"),
    "no images": ({"train.images": [], "train.annotations": []}, "has no images"),
    # categories and classes
    "two categories of a name with other keypoints": (
        {"train.categories": [CATEGORY, {**CATEGORY, "id": 9, "keypoints": NAMES[:2]}]},
        "two categories are called 'person'",
    ),
    "two categories of a name, one without keypoints": (
        {"train.categories": [CATEGORY, {"id": 9, "name": "person"}]},
        "two categories are called 'person'",
    ),
    "two categories with other keypoints": (
        {"train.categories": [CATEGORY, {"id": 9, "name": "car", "keypoints": ["front"]}]},
        "have different keypoints",
    ),
    "all as one of other keypoints": (
        {
            "train.categories": [CATEGORY, {"id": 9, "name": "car", "keypoints": ["front"]}],
            "train_entry.category": "all as one",
        },
        "have different keypoints",
    ),
    "an unknown category id": ({"train.annotations.1.category_id": 6}, "is of category 6, which is not in"),
    "an unknown category id in the test set": ({"test.annotations.1.category_id": 6}, "is of category 6"),
    "no category_id, two categories": (
        {**ANIMALS, "train.annotations.0.category_id": GONE},
        "has no 'category_id', and the file has 2",
    ),
    "two categories of an id": ({"train.categories": [CATEGORY, CATEGORY]}, "category id 5 occurs more than once"),
    "a category that is not there": ({"train_entry.category": "dog"}, "has no category 'dog'"),
    "a list with a category that is not there": (
        {"train_entry.category": ["person", "dog"]},
        "has no category 'dog'",
    ),
    "a category without keypoints": (
        {"train.categories": [CATEGORY, {"id": 9, "name": "ball"}], "train_entry.category": "ball"},
        "category 'ball' has no keypoints",
    ),
    "two classes for one": ({**ANIMALS, **FCPOSE}, "has 2 classes"),
    "one class for two": ({**FCPOSE, "config.MODEL.FCOS.NUM_CLASSES": 2}, "has 1 classes"),
    "two classes for CID": ({**ANIMALS, **CID}, "has 2 classes"),
    "a test set of other classes": (
        {**ANIMALS, "test.categories.1.name": "cow"},
        "other classes than the model: 'cow' more and 'dog' less",
    ),
    "a test set of more classes": (
        {"test.categories": OF_ANIMALS},
        "other classes than the model: 'cat', 'dog' more and 'person' less",
    ),
    "classes of other names": ({**ANIMALS, "config.MODEL.CLASS_NAMES": ["cat", "cow"]}, "has other classes"),
    "a class that no file has": ({"both_entries.classes": ["dgo"]}, "it has none of the classes dgo (it has: 'pers"),
    "a class twice": ({"both_entries.classes": ["person", "person"]}, "classes names one twice"),
    "a name for two classes": ({**ANIMALS, "both_entries.class_name": "animal"}, "class_name 'animal' is given for 2"),
    "training sets of one class each": (
        {"config.DATASETS.TRAIN": ["people_train", "people_test"], "test.categories.0.name": "dog"},
        "other classes than the model: 'dog' more and 'person' less",
    ),
    "no person left to test on": (
        {"test.categories": [CATEGORY, {"id": 7, "name": "bag"}], "test.annotations.*.category_id": 7},
        "no annotation is left to evaluate: 3 of 3 annotations are of categories",
    ),
    # where a run computes and writes
    "an unknown device": ({"config.MODEL.DEVICE": "cudaa"}, "MODEL.DEVICE 'cudaa': PyTorch knows no such device"),
    "fewer than no workers": ({"config.DATALOADER.NUM_WORKERS": -1}, "DATALOADER.NUM_WORKERS must be at least 0"),
    "no output folder": ({"config.OUTPUT_DIR": ""}, "OUTPUT_DIR is empty"),
    "an output folder that is a file": ({"config.OUTPUT_DIR": "/dev/null"}, "/dev/null is no folder"),
    "an unknown flip": ({"config.INPUT.RANDOM_FLIP": "both"}, "INPUT.RANDOM_FLIP must be 'horizontal' or 'none'"),
    "a number for a file": ({"train_entry.json_file": 5}, "json_file is 5; write a string"),
    # names, limbs, pairs, sigmas
    "no names": ({"train.categories.0.keypoints": GONE}, "none of its categories has keypoints"),
    "too few names": ({**with_keypoints(3), "both_entries.keypoints": NAMES[:2]}, "2 keypoints make 6"),
    "a schema of other keypoints": ({**with_keypoints(3), "both_entries.schema": "coco"}, "17 keypoints make 51"),
    "an unknown schema": ({"train_entry.schema": "ostrich"}, "'ostrich' is not known"),
    "names and a schema": ({"train_entry.schema": "coco", "train_entry.keypoints": NAMES}, "not both"),
    "a name twice": ({"both.categories.0.keypoints": ["a", "a", "b"]}, "occur more than once: a"),
    "a skeleton from 0 to K": ({"train.categories.0.skeleton": [[0, 1], [1, 3]]}, "with 0 and with 3"),
    "pairs of unknown keypoints": ({"train_entry.flip_pairs": [["nose", "tail"]]}, "'tail'"),
    "too few sigmas": ({"train_entry.sigmas": [0.1]}, "1 OKS sigmas for 3 keypoints"),
    "a negative sigma": ({"test_entry.sigmas": [0.1, 0.1, -0.1]}, "is not a positive number"),
    "a test set of other keypoints": ({"test.categories.0.keypoints": NAMES[::-1]}, "the first difference"),
    "a model of other keypoints": (
        {"config.MODEL.KEYPOINT_SCHEMA.NAMES": ["a", "b"]},
        "MODEL.KEYPOINT_SCHEMA of the config has 2 keypoints",
    ),
    # annotations
    "too few numbers": ({"train.annotations.1.keypoints": [12, 8, 2, 6, 20, 1]}, "6 numbers where"),
    "visibility 3": ({"train.annotations.1.keypoints": [12, 8, 3, 6, 20, 1, 0, 0, 0]}, "visibility of 0, 1 or 2"),
    "keypoints as text": ({"train.annotations.1.keypoints": ["12", "8", "2", 6, 20, 1, 0, 0, 0]}, "not all numbers"),
    "keypoints of an object": ({"train.annotations.1.keypoints": {"nose": [12, 8, 2]}}, "keypoints is {'nose'"),
    "a labelled keypoint without coordinates": (
        {"train.annotations.1.keypoints": [None, None, 2, 6, 20, 1, 0, 0, 0]},
        "not all numbers",
    ),
    "keypoints in shares": ({"train.annotations.*.keypoints": shares}, "they are fractions of the image's size"),
    "boxes in shares": ({"train.annotations.*.bbox": [0.1, 0.1, 0.6, 0.7]}, "they are fractions of the image's size"),
    "boxes of corners": (
        # as x, y, width and height it would reach to (92, 66)
        {
            "train.annotations": lambda people: people[:2],
            "train.annotations.*.bbox": [30, 20, 62, 46],
            "train.annotations.*.keypoints": [40, 24, 2, 34, 30, 2, 60, 44, 1],
        },
        "[x1, y1, x2, y2]",
    ),
    "a negative width": ({"train.annotations.1.bbox": [24, 4, -20, 30]}, "bbox is [24, 4, -20, 30]"),
    "a box of text": ({"train.annotations.1.bbox": ["4", "4", "20", "30"]}, "bbox is ['4'"),
    "a box of three numbers": ({"train.annotations.1.bbox": [4, 4, 20]}, "bbox is [4, 4, 20]"),
    "iscrowd as text": ({"train.annotations.1.iscrowd": "0"}, "iscrowd is '0'"),
    "iscrowd 2": ({"test.annotations.1.iscrowd": 2}, "iscrowd is 2"),
    "a crowd without a sound segmentation": (
        {"train.annotations.1.iscrowd": 1, "train.annotations.1.segmentation": "no"},
        "segmentation is 'no'",
    ),
    "an annotation of no image": ({"train.annotations.1.image_id": 99}, "is of image 99, which is not in"),
    "an image id as text": ({"train.annotations.1.image_id": "7"}, "write both as a number or both as text"),
    # images
    "an id for two images": ({"train.images.1.id": 7}, "image id 7 occurs more than once"),
    "no image ids": ({"train.images.*.id": GONE}, "has no 'id'"),
    "no file name": ({"train.images.0.file_name": GONE}, "has no 'file_name'"),
    "no width": ({"train.images.0.width": GONE}, "width is None"),
    "a width as text": ({"train.images.0.width": "64"}, "width is '64'"),
    "half a pixel": ({"train.images.0.width": 64.5}, "width is 64.5"),
    "a file outside the folder": ({"train.images.0.file_name": "../a.png"}, "not a path inside the image folder"),
    "a missing image": ({"files": {"a.png": (64, 48)}}, "1 of its 2 images are missing"),
    "another image folder": (
        {"train_entry.image_root": lambda folder: f"{folder}/night"},
        "2 of its 2 images are missing",
    ),
    "no image folder": ({"train_entry.image_root": "nowhere"}, "nowhere does not exist"),
    "a truncated image": ({"files": {**FILES, "a.png": b"\x89PNG\r\n\x1a\n"}}, "can't be read"),
    "an image of 16 bits": (
        {"files": {**FILES, "a.png": png(Image.fromarray(np.zeros((48, 64), np.uint16)))}},
        "more than 8 bits per channel",
    ),
    "an image of another size": ({"both.images.0.width": 65}, "64 x 48 pixels, its annotation says 65 x 48"),
    "one size for all images": (
        {
            "both.images": lambda images: [
                *({**image, "width": 64, "height": 48} for image in images),
                {"id": 8, "file_name": "c.png", "width": 64, "height": 48},
            ],
            "files": {**FILES, "c.png": (30, 30)},
        },
        "the annotation tool wrote one size for all",
    ),
    "widths and heights swapped": (
        {
            "both.images": [
                {"id": 7, "file_name": "a.png", "width": 48, "height": 64},
                {"id": 3, "file_name": "night/b.png", "width": 56, "height": 40},
            ],
        },
        "width and height are swapped: exchange them",
    ),
    "EXIF orientation not applied": (
        {"files": {"a.png": turned(64, 48), "night/b.png": turned(40, 56)}},
        "EXIF orientation was not applied",
    ),
    "a broken training image that is not checked for": (
        {
            "config.DATASETS.CHECK_IMAGES": False,
            "files": {**FILES, "a.png": b"no image"},
            "config.DATALOADER.ASPECT_RATIO_GROUPING": False,
        },
        "cannot be read",
    ),
    # files and registration
    "no file": ({"train": None}, "the file does not exist"),
    "half a file": ({"train": '{"images": ['}, "not valid JSON"),
    "a list": ({"train": "[]"}, "not in COCO's format"),
    "no list of annotations": ({"test.annotations": GONE}, "no list 'annotations'"),
    "an unknown training set": ({"config.DATASETS.TRAIN": ["people"]}, "DATASETS.TRAIN: data set 'people' is not"),
    "an unknown test set": ({"config.DATASETS.TEST": ["people"]}, "DATASETS.TEST: data set 'people' is not"),
    "no training set": ({"config.DATASETS.TRAIN": []}, "DATASETS.TRAIN is empty"),
    "an unknown key of a data set": ({"train_entry.json": "x"}, "unknown keys 'json'"),
    "a data set without a folder": ({"train_entry.image_root": GONE}, "lacks image_root"),
    "two data sets of a name": ({"test_entry.name": "people_train"}, "names two data sets 'people_train'"),
    "an unknown protocol": ({"test_entry.protocol": "crowd"}, "unknown protocol 'crowd'"),
    # evaluation
    "a faulty test file, images not checked": (
        {"test.annotations.1.keypoints": [1, 2], "config.DATASETS.CHECK_IMAGES": False},
        "2 numbers where",
    ),
    "no crowd indices": (CROWDPOSE, "crowdIndex is None"),
    "a crowd index of NaN": ({**CROWDPOSE, "test.images.*.crowdIndex": math.nan}, "crowdIndex is nan"),
    "a negative crowd index": ({**CROWDPOSE, "test.images.*.crowdIndex": -0.1}, "crowdIndex is -0.1"),
    "too few sigmas for the evaluation": (
        {"config.TEST.KEYPOINT_OKS_SIGMAS": [0.1, 0.1]},
        "TEST.KEYPOINT_OKS_SIGMAS does not fit",
    ),
    "a negative sigma for the evaluation": (
        {"config.TEST.KEYPOINT_OKS_SIGMAS": [0.1, -0.1, 0.1]},
        "TEST.KEYPOINT_OKS_SIGMAS",
    ),
    "no detections": ({"config.TEST.MAX_DETS.KEYPOINTS": 0}, "TEST.MAX_DETS.KEYPOINTS must be at least 1"),
    "an unknown task": ({"config.TEST.TASKS": ["segm"]}, "TEST.TASKS has unknown tasks 'segm'"),
    "a malformed expected result": (
        {"config.TEST.EXPECTED_RESULTS": [["keypoints", "AP", 50.0]]},
        "TEST.EXPECTED_RESULTS[0] is",
    ),
    "an expected result of no metric": (
        {"config.TEST.EXPECTED_RESULTS": [["keypoints", "mAP", 50.0, 1.0]]},
        "has no metric 'mAP'",
    ),
    "an unknown merge of the views": (
        {"config.TEST.AUG.ENABLED": True, "config.TEST.AUG.MERGE": "all"},
        "TEST.AUG.MERGE must be",
    ),
    # training
    "a crop of nothing": ({"config.INPUT.CROP.ENABLED": True, "config.INPUT.CROP.SIZE": [0.0, 0.5]}, "INPUT.CROP.SIZE"),
    "a crop of more than all": (
        {"config.INPUT.CROP.ENABLED": True, "config.INPUT.CROP.SIZE": [1.5, 0.5]},
        "INPUT.CROP.SIZE",
    ),
    "one length for a range": ({"config.INPUT.MIN_SIZE_TRAIN_SAMPLING": "range"}, "must be two lengths"),
    "no lengths": ({"config.INPUT.MIN_SIZE_TRAIN": []}, "INPUT.MIN_SIZE_TRAIN must be one length or more"),
    "mirrored upside down": ({"config.INPUT.RANDOM_FLIP": "vertical"}, "INPUT.RANDOM_FLIP 'vertical'"),
    "no images in a batch": ({"config.SOLVER.IMS_PER_BATCH": 0}, "SOLVER.IMS_PER_BATCH must be at least 1"),
    "fewer than no images at once": ({"config.SOLVER.IMS_PER_PROCESS": -1}, "SOLVER.IMS_PER_PROCESS must be"),
    "no iterations": ({"config.SOLVER.MAX_ITER": 0}, "SOLVER.MAX_ITER must be at least 1"),
    "steps that descend": ({"config.SOLVER.STEPS": [2000, 1000]}, "SOLVER.STEPS must ascend"),
    "steps of epochs without epochs": ({"config.SOLVER.STEPS_EPOCHS": [90]}, "SOLVER.MAX_EPOCHS is 0"),
    "steps of epochs beyond the last": (
        {"config.SOLVER.MAX_EPOCHS": 140, "config.SOLVER.STEPS_EPOCHS": [90, 150]},
        "SOLVER.STEPS_EPOCHS must ascend",
    ),
    "epochs shorter than a batch": (
        # ceil(90 * 2 / 100) = 2, ceil(120 * 2 / 100) = ceil(140 * 2 / 100) = 3
        {**CID_SCHEDULE, "config.SOLVER.IMS_PER_BATCH": 100},
        "iterations 2, 3 of 3",
    ),
    "CID's epochs of one image": (
        # ceil(90 / 40) = ceil(120 / 40) = 3, ceil(140 / 40) = 4
        {
            **{**CID, **CID_SCHEDULE, "config.SOLVER.IMS_PER_BATCH": 40},
            **{"train.images": lambda images: images[:1], "train.annotations": lambda people: people[:2]},
        },
        "iterations 3, 3 of 4",
    ),
    "an unknown optimizer": ({"config.SOLVER.OPTIMIZER": "LION"}, "SOLVER.OPTIMIZER must be"),
    "an unknown precision": ({"config.SOLVER.AMP.DTYPE": "float8"}, "SOLVER.AMP.DTYPE must be"),
    "an average that never moves": (
        {"config.SOLVER.EMA.ENABLED": True, "config.SOLVER.EMA.DECAY": 1.0},
        "SOLVER.EMA.DECAY must be",
    ),
    "an unknown sampler": ({"config.DATALOADER.SAMPLER_TRAIN": "Sampler"}, "DATALOADER.SAMPLER_TRAIN must be"),
    "an unknown architecture": ({"config.MODEL.META_ARCHITECTURE": "PoseNet"}, "PoseNet"),
    "weights that are not there": ({"config.MODEL.WEIGHTS": "nowhere.pth"}, "nowhere.pth"),
    "weights of another method": (weights("CID"), "weights.pth"),
    "weights of another shape": (weights("OneWeight", 2), "weights.pth"),
    "weights that are none": ({"config.MODEL.WEIGHTS": __file__}, "test_check_data_agrees.py"),
    "an unknown key of the config": ({"config.SOLVER.EPOCHS": 3}, "unknown config key SOLVER.EPOCHS"),
    # a user's own function
    "dicts with iscrowd as text": (own(iscrowd="0"), "iscrowd is '0'"),
    "dicts with a class that is not there": (own(category_id=1), "category_id 1"),
    "dicts with too few keypoints": (own(keypoints=lambda points: points[:6]), "6 numbers where"),
    "dicts without sizes": (own(sizes=False), "has no width and height"),
    "two images of an id": (own(lambda root: own_dicts(root) * 2), "image 0 is in data set 'own' too"),
    "no list of dicts": (own(lambda root: iter(own_dicts(root))), "is not a list of dicts"),
    "a function that fails": (own(raising), "no such column"),
    "no names in the metadata": (own(metadata={"keypoint_names": None}), "has no keypoints"),
    "too few sigmas in the metadata": (own(metadata={"keypoint_sigmas": [0.1]}), "1 OKS sigmas for 3 keypoints"),
}

# errors raised by a user's function, and by a module that works without a config too
RAISED_BY_OTHERS = {"a function that fails": KeyError, "an unknown merge of the views": ValueError}


@pytest.fixture
def both(tmp_path, monkeypatch, capsys):
    """The results of both: exit code and output of check-data; the error of training, and whether it made a step."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(changes):
        config = make_run(tmp_path, changes)
        code = run_check_data(config, str(tmp_path / "page.jpg"))
        output = " ".join(capsys.readouterr().out.split())
        return code, output, *take_first_step(config)

    return run


@pytest.mark.usefixtures("clean_run")
@pytest.mark.parametrize("name", SOUND)
def test_sound(both, name):
    code, output, error, stepped = both(SOUND[name])
    assert (error, stepped) == (None, True)
    assert output.endswith("training can start")
    assert code == 0


@pytest.mark.usefixtures("clean_run")
@pytest.mark.parametrize("name", FAULTY)
def test_faulty(both, name):
    changes, words = FAULTY[name]
    code, output, error, stepped = both(changes)
    assert not stepped
    assert isinstance(error, RAISED_BY_OTHERS.get(name, (ConfigError, DatasetError, CheckpointError)))
    message = " ".join(str(error).split())
    assert words in message
    assert message in output
    assert output.endswith("training would fail")
    assert code == 1


@pytest.mark.usefixtures("catalogs")
def test_check_data_leaves_nothing_behind(tmp_path):
    """But the page: neither a run's folder nor a set-up log."""
    config = make_run(tmp_path, {})
    before, logger = set(tmp_path.iterdir()), logging.getLogger("detectron2")
    handlers, level = list(logger.handlers), logger.level
    assert run_check_data(config, str(tmp_path / "page.jpg")) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "page.jpg"}
    assert (logger.handlers, logger.level) == (handlers, level)


@pytest.mark.usefixtures("clean_run")
def test_names_without_pairs_are_a_warning(both, caplog):
    """Training says it in the log, check-data in the report."""
    code, output, error, stepped = both(SOUND["names that have sides but no pairs"])
    assert (code, error, stepped) == (0, None, True)
    for text in (output, caplog.text):
        assert "left_wrist, right_paw: in no flip pair although the name has a side" in text
