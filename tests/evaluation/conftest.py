"""Small data sets to evaluate on."""

import itertools
import json

import pytest
from detectron2.data import MetadataCatalog

from dynpose.data import KeypointSchema


@pytest.fixture
def make_dataset(tmp_path):
    """Writes an annotation file and registers its metadata."""
    dataset_names = (f"evaluated_{i}" for i in itertools.count())
    registered = []

    def make(data, num_keypoints=2, sigmas=(), names=None, **metadata):
        name = next(dataset_names)
        json_file = tmp_path / f"{name}.json"
        json_file.write_text(json.dumps(data))
        schema = KeypointSchema(names=names or [f"point_{i}" for i in range(num_keypoints)], sigmas=sigmas)
        schema.to_metadata(MetadataCatalog.get(name))
        MetadataCatalog.get(name).set(json_file=str(json_file), **metadata)
        registered.append(name)
        return name

    yield make
    for name in registered:
        MetadataCatalog.remove(name)
