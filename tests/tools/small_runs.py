"""Small data sets in files with a config each, and the two that read them: ``dynpose check-data`` and train_net.py.

A data set is sound until a case changes it. A case is a dict from a place to what is written there. The first word of
a place says of what:

- ``train`` and ``test`` are the annotation files, ``both`` the two, and ``encoding`` theirs;
- ``train_entry``, ``test_entry`` and ``both_entries`` are what DATASETS.POSE says of them;
- ``config`` is the config;
- ``files`` is the image folder: bytes, or the width and height of an image, by their names;
- ``functions`` are data sets that the user registers: what gives their dicts, called with the image folder, and their
  metadata, by their names.
"""

import contextlib
import copy
import functools
import json
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import nn

from dynpose.data import schema_from_cfg
from dynpose.engine import PoseTrainer, entry, setup
from dynpose.tools import cli

QUICK = str(Path(__file__).parents[2] / "configs" / "quick")
NAMES = ["nose", "left_wrist", "right_wrist"]
GONE = object()
"""The value by which a case removes an item."""


@META_ARCH_REGISTRY.register()
class OneWeight(nn.Module):
    """The smallest model that can be trained: it learns the mean of the labelled keypoints' coordinates."""

    def __init__(self, cfg):
        super().__init__()
        self.schema = schema_from_cfg(cfg)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        people = torch.cat([image["instances"].gt_keypoints.tensor for image in images])
        assert people.shape[1:] == (self.schema.num_keypoints, 3)
        labelled = people[people[..., 2] > 0]
        # the second term moves it where no person is in the batch
        return {"loss": ((labelled[:, :2] - self.weight) ** 2).sum() / max(1, len(labelled)) + self.weight.sum()}


def annotation():
    """Three people with three keypoints in two images."""
    person = {"category_id": 5, "iscrowd": 0}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 3, "file_name": "night/b.png", "width": 40, "height": 56},
        ],
        "categories": [{"id": 5, "name": "person", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}],
        "annotations": [
            {
                **person,
                **{"id": 11, "image_id": 7, "bbox": [10, 5, 40, 36], "area": 700.0},
                **{"keypoints": [30, 10, 2, 14, 20, 2, 46, 38, 1], "num_keypoints": 3},
            },
            {
                **person,
                **{"id": 12, "image_id": 7, "bbox": [4, 4, 20, 30], "area": 300.0},
                **{"keypoints": [12, 8, 2, 6, 20, 1, 0, 0, 0], "num_keypoints": 2},
            },
            {
                **person,
                **{"id": 13, "image_id": 3, "bbox": [5, 10, 30, 40], "area": 600.0},
                **{"keypoints": [20, 14, 2, 8, 30, 2, 32, 46, 2], "num_keypoints": 3},
            },
        ],
    }


def _sound(folder):
    entries = {
        f"{split}_entry": {
            "name": f"people_{split}",
            "json_file": str(folder / f"{split}.json"),
            "image_root": str(folder / "images"),
        }
        for split in ("train", "test")
    }
    config = {
        "MODEL": {"META_ARCHITECTURE": "OneWeight", "DEVICE": "cpu", "WEIGHTS": ""},
        "DATASETS": {"TRAIN": ["people_train"], "TEST": ["people_test"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "INPUT": {"MIN_SIZE_TRAIN": [48], "MAX_SIZE_TRAIN": 64},
        "SOLVER": {"IMS_PER_BATCH": 2, "BASE_LR": 0.1},
        "SEED": 0,
        "OUTPUT_DIR": str(folder / "output"),
    }
    files = {"a.png": (64, 48), "night/b.png": (40, 56)}
    splits = {"train": annotation(), "test": annotation()}
    return {**splits, **entries, "config": config, "files": files, "encoding": "utf-8", "functions": {}}


_SEVERAL = {"both": ("train", "test"), "both_entries": ("train_entry", "test_entry")}


def make_run(folder, changes):
    """Write a data set and its config.

    Args:
        folder (Path)
        changes (dict): of a case. A place such as ``train.annotations.*.bbox`` names keys and numbers of list items, or
            all items. A function is called with the present value.

    Returns:
        str: the config's name.
    """
    run = _sound(folder)
    for place, value in changes.items():
        first, *keys = place.split(".")
        for name in _SEVERAL.get(first, (first,)):
            _change(run, [name, *keys], value)
    for split in ("train", "test"):
        if run[split] is not None:
            text = run[split] if isinstance(run[split], str) else json.dumps(run[split])
            (folder / f"{split}.json").write_text(text, encoding=run["encoding"])
    (folder / "images" / "night").mkdir(parents=True)
    for name, content in run["files"].items():
        if isinstance(content, bytes):
            (folder / "images" / name).write_bytes(content)
        else:
            Image.new("RGB", content).save(folder / "images" / name)
    entries = [run[f"{split}_entry"] for split in ("train", "test")]
    entries = [entry for entry in entries if entry is not None] + run.get("more_entries", [])
    run["config"]["DATASETS"].setdefault("POSE", entries)
    for name, (function, metadata) in run["functions"].items():
        DatasetCatalog.register(name, functools.partial(function, str(folder / "images")))
        MetadataCatalog.get(name).set(**metadata)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(run["config"]))
    return str(config)


def _change(container, keys, value):
    key, *rest = keys
    if isinstance(container, list):
        for index in range(len(container)) if key == "*" else [int(key)]:
            _change_one(container, index, rest, value)
    else:
        _change_one(container, key, rest, value)


def _change_one(container, key, rest, value):
    if rest:
        if isinstance(container, dict):
            container.setdefault(key, {})
        _change(container[key], rest, value)
    elif value is GONE:
        del container[key]
    else:
        container[key] = value(container[key]) if callable(value) else copy.deepcopy(value)


def run_check_data(config, page):
    """The exit code of ``dynpose check-data``."""
    with _registered_for_a_while():
        return cli.main(["check-data", "--config-file", config, "--output", page, "--samples", "1"])


def take_first_step(config):
    """Do what train_net.py does, up to and including the first step.

    Returns:
        tuple[Exception | None, bool]: the raised exception, if any, and whether a step was taken.
    """
    with _registered_for_a_while(), pytest.MonkeyPatch.context() as patch:
        # detectron2's, which takes most of the time to write down config and environment
        patch.setattr(entry, "default_setup", lambda cfg, args: Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True))
        try:
            cfg = setup(default_argument_parser().parse_args(["--config-file", config]))
            trainer = PoseTrainer(cfg)
            trainer.resume_or_load(resume=False)
            return None, _step(trainer)
        except Exception as error:
            return error, False


def _step(trainer):
    """Whether the first step has changed the model."""
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with EventStorage() as trainer.storage:
        trainer.iter = trainer.start_iter
        trainer.before_train()
        trainer.before_step()
        trainer.run_step()
    return any(not torch.equal(old, new) for old, new in zip(weights, trainer.model.parameters()))


@contextlib.contextmanager
def _registered_for_a_while():
    """Data sets that are registered inside are forgotten, as two processes would."""
    before = [(catalog, set(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    try:
        yield
    finally:
        for catalog, known in before:
            for name in set(catalog) - known:
                catalog.remove(name)
