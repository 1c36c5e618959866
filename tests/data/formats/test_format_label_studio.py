"""Label Studio: people joined by parents or relations, percentages, choices, and paths of its server."""

import json

import pytest


def region(region_id, label, x, y, parent=None, **value):
    kind = "rectanglelabels" if "height" in value else "keypointlabels"
    found = {
        "id": region_id,
        "type": kind,
        "from_name": kind,
        "to_name": "image",
        "original_width": 64,
        "original_height": 48,
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 1, kind: [label], **value},
    }
    return found | ({"parentID": parent} if parent else {})


def choice(region_id, word):
    return {"id": region_id, "type": "choices", "value": {"choices": [word]}}


def task(results, image="/data/upload/1/0123abcd-a.png", **more):
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": results, "was_cancelled": False}], **more}


def write(folder, *tasks):
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder / "tasks.json"


# by hand: 25 % of 64 is 16, 50 % of 48 is 24
TWO = [
    region("r1", "cat", 10, 20, width=50, height=50, rotation=0),
    region("r2", "cat", 50, 0, width=25, height=25, rotation=0),
    region("k1", "nose", 25, 50, "r1"),
    region("k2", "ear", 50, 25, "r1"),
    region("k3", "ear", 75, 12.5, "r2"),
]


def test_several_people(tmp_path, make_image, converted, keypoints_by_image):
    make_image(tmp_path / "images" / "a.png")
    results = [*TWO, choice("k2", "Occluded"), choice("k3", "hairy"), {"id": "p", "type": "polygonlabels", "value": {}}]
    more = {"predictions": [{"result": []}], "file_upload": "x.png"}
    done = converted(write(tmp_path, task(results, **more)))
    assert keypoints_by_image(done.data) == {"a.png": [[(15.5, 23.5, 2), (31.5, 11.5, 1)], [(0, 0, 0), (47.5, 5.5, 2)]]}
    assert done.data["categories"][0]["name"] == "cat"
    assert done.data["categories"][0]["keypoints"] == ["nose", "ear"]
    assert [item["bbox"] for item in done.data["annotations"]] == [pytest.approx([6.4, 9.6, 32, 24]), [32, 0, 16, 12]]
    for line in (
        "Label Studio JSON (label-studio)",
        "choices 'hairy' of a keypoint: 1",
        "regions of the type 'polygonlabels': 1",
        "predictions: 1",
        "keypoints in the order of drawing",
    ):
        assert line in done.out


def test_relations_and_one_person_alone(tmp_path, make_image, converted, keypoints_by_image):
    for name in ("a", "b"):
        make_image(tmp_path / f"{name}.png")
    loose = [{key: value for key, value in item.items() if key != "parentID"} for item in TWO]
    relations = [("k1", "r1"), ("r1", "k2"), ("k3", "r2")]
    joined = [*loose, *({"type": "relation", "from_id": a, "to_id": b} for a, b in relations)]
    alone = [loose[0], loose[2], loose[3]]
    files = ("/data/local-files/?d=pictures/a.png", "s3://bucket/far/b.png?x=1")
    done = converted(write(tmp_path, *(task(*pair) for pair in zip((joined, alone), files))))
    assert keypoints_by_image(done.data) == {
        "a.png": [[(15.5, 23.5, 2), (31.5, 11.5, 2)], [(0, 0, 0), (47.5, 5.5, 2)]],
        "b.png": [[(15.5, 23.5, 2), (31.5, 11.5, 2)]],
    }
    assert "lost: none" in done.out


def test_absent_points_and_rotated_rectangles(tmp_path, make_image, converted):
    make_image(tmp_path / "a.png")
    results = [region("r1", "cat", 50, 50, width=25, height=25, rotation=90), *TWO[2:4], choice("k1", "absent")]
    done = converted(write(tmp_path, task(results)))
    assert done.data["annotations"][0]["keypoints"] == [0, 0, 0, 31.5, 11.5, 2]
    # 16 x 12 around (32, 24), turned clockwise by 90 degrees: x from 20 to 32, y from 24 to 40
    assert done.data["annotations"][0]["bbox"] == pytest.approx([20, 24, 12, 16])


def test_annotations_of_several_people(tmp_path, make_image, converted):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    first = task(TWO)
    first["annotations"] += [
        {"result": TWO[:3], "ground_truth": True},
        {"result": [], "was_cancelled": True},
    ]
    skipped = task([], "b.png")
    skipped["annotations"][0]["was_cancelled"] = True
    done = converted(write(tmp_path, first, skipped))
    assert "further annotations of a task: 1" in done.out
    assert "tasks without an annotation: 1" in done.out
    assert [item["num_keypoints"] for item in done.data["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{**item, "parentID": None} for item in TWO], "points without a group: 3, the first is 'nose'; drag the"),
        ([*TWO[:2], {**TWO[2], "image_rotation": 90}], "region 'k1': the image was rotated by 90 degrees"),
        ([{**TWO[2], "original_width": 65}], "the image was 65 x 48 pixels in Label Studio, and the file has 64 x 48"),
        ([{**TWO[2], "item_index": 1}], "it belongs to image 1 of a task with several images"),
        ([region("k", "nose", 1, 2, keypointlabels=["a", "b"])], "keypointlabels is ['a', 'b'], where a list of one"),
        ([region("k", "nose", None, 2)], "region 'k': x is None, where a number is needed"),
        ([region("k", "nose", 10**400, 2)], "region 'k': x is 1000"),
        ([region("k", "nose", "7", 2)], "region 'k': x is '7', where a number is needed"),
        ([region("k", "cat", 1, 2, height="5")], "region 'k': height is '5', where a number is needed"),
        ([{**TWO[2], "value": None}], "region 'k1': value is None"),
        ([{key: value for key, value in TWO[2].items() if key != "value"}], "region 'k1': it has no value"),
        ([region("k", "nose", float("nan"), 2)], "region 'k': x is nan, where a number is needed"),
    ],
)
def test_what_is_refused(tmp_path, make_image, refused, results, message):
    make_image(tmp_path / "a.png")
    err = refused(write(tmp_path, task(results)))
    assert message in err
    assert "tasks.json" in err


def test_text_that_is_no_address(tmp_path, make_image, converted):
    """Beside the image, a task has other text, here what urllib takes for a wrong IPv6 address."""
    make_image(tmp_path / "a.png")
    tasks = task(TWO)
    tasks["data"] = {"note": "http://[left", **tasks["data"]}
    assert len(converted(write(tmp_path, tasks)).data["annotations"]) == 2


def test_files_that_are_refused(tmp_path, make_image, refused):
    minimal = {"id": 1, "annotation_id": 2, "image": "a.png", "points": []}
    assert "it is a JSON-MIN export" in refused(write(tmp_path, minimal))
    assert "image '/data/upload/1/0123abcd-a.png' is not in" in refused(write(tmp_path, task(TWO)))
    assert "task 7: data names no image" in refused(write(tmp_path, task(TWO, image="hello")))


def test_two_tasks_of_one_file(tmp_path, make_image, refused):
    """Two images of one name, of which one is there."""
    make_image(tmp_path / "a.png")
    err = refused(write(tmp_path, task(TWO, "/x/a.png"), task(TWO, "/y/a.png")))
    assert "a.png: it is both image 'a.png' and image 'a.png'" in err
