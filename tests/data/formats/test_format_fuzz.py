"""Damaged projects are converted or refused in one line: no other error, and nothing half written."""

import copy
import json
import random

import pytest
import yaml
from test_format_cvat import SKELETON, image
from test_format_cvat import write as write_cvat
from test_format_deeplabcut import MULTI
from test_format_deeplabcut import write as write_deeplabcut
from test_format_label_studio import TWO as REGIONS
from test_format_label_studio import choice, task
from test_format_label_studio import write as write_label_studio
from test_format_labelme import TWO as SHAPES
from test_format_labelme import write as write_labelme
from test_format_yolo import write as write_yolo

from dynpose.tools import cli

VALUES = (
    *(None, True, -1, 0, float("inf"), float("nan"), 10**30, "", "x", "../../secret.png", "\0"),
    *([], {}, [[]], {"a": 1}, 1.5, [1, 2, 3]),
)
MARKS = '01.,;-"<>&x\n\\'


def places(value, path=()):
    """The paths to all values inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(value, rng):
    """A copy in which a value is replaced or missing."""
    value = copy.deepcopy(value)
    *path, last = rng.choice(list(places(value)))
    parent = value
    for key in path:
        parent = parent[key]
    if rng.random() < 0.3:
        del parent[last]
    else:
        parent[last] = copy.deepcopy(rng.choice(VALUES))
    return value


def damaged_text(text, rng):
    characters = list(text)
    for _ in range(rng.choice((1, 3))):
        characters[rng.randrange(len(characters))] = rng.choice(("", *MARKS))
    return "".join(characters)


def label_studio(folder, make_image, rng):
    make_image(folder / "a.png")
    return write_label_studio(folder, damaged(task([*REGIONS, choice("k1", "hidden")]), rng))


def labelme(folder, make_image, rng):
    make_image(folder / "a.png")
    file = write_labelme(folder, "a", SHAPES)
    file.write_text(json.dumps(damaged(json.loads(file.read_text()), rng)))
    return file


def yolo_pose(folder, make_image, rng):
    file = write_yolo(folder, make_image=make_image, skeleton=[["nose", "ear_l"]])
    file.write_text(yaml.safe_dump(damaged(yaml.safe_load(file.read_text()), rng)))
    return file


def cvat(folder, make_image, rng):
    make_image(folder / "a.png")
    file = write_cvat(folder, image(SKELETON.format(group="", outside=1) + '<points label="t" points="1,2"/>'))
    file.write_text(damaged_text(file.read_text(), rng))
    return file


def deeplabcut(folder, make_image, rng):
    return write_deeplabcut(folder, damaged_text(MULTI, rng), make_image)


@pytest.mark.parametrize("make", [label_studio, labelme, yolo_pose, cvat, deeplabcut])
def test_damaged_projects(tmp_path, make_image, capsys, make):
    codes = []
    for seed in range(12):
        file = make(tmp_path / str(seed), make_image, random.Random(seed))
        output = tmp_path / f"{seed}.json"
        name = make.__name__.replace("_", "-")
        codes.append(cli.main(["convert-data", str(file), "--from", name, "--output", str(output)]))
        err = capsys.readouterr().err
        assert output.exists() == (codes[-1] == 0)
        assert err.count("dynpose: error: ") == (codes[-1] == 2), err
    assert set(codes) == {0, 2}
