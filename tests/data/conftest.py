"""A small, well-formed pose data set on disk, which tests of dynpose.data change one thing of."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class PoseFiles:
    """Two images, one with a person of three keypoints; ``data`` is written by ``save``."""

    def __init__(self, folder):
        self.image_root = str(folder / "images")
        self.json_file = str(folder / "people.json")
        (folder / "images").mkdir()
        # Image 7 is 40 x 30 with its one white pixel at the left wrist
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[20, 12] = 255
        Image.fromarray(pixels).save(folder / "images" / "a.png")
        Image.new("RGB", (20, 50)).save(folder / "images" / "b.png")
        self.data = {
            "images": [
                {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 3, "file_name": "b.png", "width": 20, "height": 50},
            ],
            "categories": [
                {
                    "id": 5,
                    "name": "person",
                    "keypoints": ["nose", "left_wrist", "right_wrist"],
                    "skeleton": [[1, 2], [1, 3]],
                }
            ],
            "annotations": [
                {
                    "id": 11,
                    "image_id": 7,
                    "category_id": 5,
                    "iscrowd": 0,
                    "area": 300.0,
                    "bbox": [10, 5, 24, 20],
                    "keypoints": [15, 8, 2, 12, 20, 2, 30, 21, 1],
                }
            ],
        }
        self.save()

    def save(self):
        Path(self.json_file).write_text(json.dumps(self.data))


@pytest.fixture
def pose_files(tmp_path):
    return PoseFiles(tmp_path)
