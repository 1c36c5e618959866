"""labelme and X-AnyLabeling: shapes that a group joins, and images inside the file."""

import base64
import json

import pytest


def shape(label, points, group=None, kind="point", **more):
    found = {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}
    return found | {"description": ""} | more


def write(folder, name, shapes, **more):
    folder.mkdir(exist_ok=True)
    data = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
    data |= {"imageHeight": 48, "imageWidth": 64, **more}
    (folder / f"{name}.json").write_text(json.dumps(data))
    return folder / f"{name}.json"


TWO = [
    shape("cat", [[40, 30], [10, 5]], 1, "rectangle"),
    shape("nose", [[12.5, 8.25]], 1),
    shape("left_ear", [[20, 9]], 1, flags={"occluded": True}),
    shape("right_ear", [[30, 40]], 2),
    shape("tail", [[0, 0]], 2),
    shape("sofa", [[1, 1], [5, 5], [1, 5]], None, "polygon"),
]


def test_a_folder(tmp_path, make_image, converted, keypoints_by_image):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    write(tmp_path, "a", TWO)
    write(tmp_path, "b", [shape("nose", [[3, 4]])], imagePath=".\\b.png")
    (tmp_path / "notes.json").write_text("{}")
    done = converted(tmp_path)
    assert done.data["categories"][0]["keypoints"] == ["nose", "left_ear", "right_ear", "tail"]
    assert done.data["categories"][0]["name"] == "cat"
    assert keypoints_by_image(done.data) == {
        "a.png": [
            [(12, 7.75, 2), (19.5, 8.5, 1), (0, 0, 0), (0, 0, 0)],
            [(0, 0, 0), (0, 0, 0), (29.5, 39.5, 2), (-0.5, -0.5, 2)],
        ],
        "b.png": [[(2.5, 3.5, 2), (0, 0, 0), (0, 0, 0), (0, 0, 0)]],
    }
    assert done.data["annotations"][0]["bbox"] == [10, 5, 30, 25]
    for line in (
        "labelme (labelme)",
        "shapes of the type 'polygon': 1",
        "pairs (proposed by name): left_ear / right_ear",
        "labelled points at exactly (0, 0), often missing ones: 1 (first: a.png)",
    ):
        assert line in done.out


def test_x_anylabeling(tmp_path, make_image, converted, keypoints_by_image):
    make_image(tmp_path / "a.png")
    corners = [[10, 5], [40, 5], [40, 30], [10, 30]]
    extra = {"difficult": False, "attributes": {}, "kie_linking": []}
    shapes = [shape("cat", corners, 0, "rectangle", **extra)]
    shapes += [shape("nose", [[12.5, 8.25]], 0, **{**extra, "difficult": True})]
    shapes += [shape("ear", [[15, 9]], 0, **{**extra, "attributes": {"state": "hidden"}})]
    shapes += [shape("tail", [[16, 9]], 0, **extra)]
    done = converted(write(tmp_path, "a", shapes, version="4.2.1"))
    assert "X-AnyLabeling (x-anylabeling)" in done.out
    assert keypoints_by_image(done.data) == {"a.png": [[(12, 7.75, 1), (14.5, 8.5, 1), (15.5, 8.5, 2)]]}
    assert done.data["annotations"][0]["bbox"] == [10, 5, 30, 25]


def test_the_image_in_the_file(tmp_path, make_image, converted):
    content = make_image(tmp_path / "elsewhere" / "a.png").read_bytes()
    file = write(tmp_path / "json", "a", TWO, imageData=base64.b64encode(content).decode())
    done = converted(file)
    assert done.data["images"][0] == {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    assert (tmp_path / "out_images" / "a.png").is_file()
    assert "images extracted from imageData, since their files are missing: 1" in done.out
    assert f"{tmp_path / 'out_images'}: 1 images written" in done.out


def test_published_names_give_the_order(tmp_path, make_image, converted):
    names = ["ankle", "hip", "knee", "elbow", "wrist", "shoulder"]
    shuffled = [f"{side}_{name}" for side in ("right", "left") for name in names] + ["neck", "head"]
    make_image(tmp_path / "a.png")
    shapes = [shape(name, [[i + 1, 2]], 1) for i, name in enumerate(shuffled)]
    done = converted(write(tmp_path, "a", shapes))
    assert done.data["categories"][0]["keypoints"][:3] == ["left_shoulder", "right_shoulder", "left_elbow"]
    assert "pairs (proposed: published for these keypoints): left_shoulder / right_shoulder" in done.out
    assert "order of drawing" not in done.out


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [shape("nose", [[1, 2]]), shape("nose", [[3, 4]])],
            "points without a group: 2, the first is 'nose'; select",
        ),
        ([shape("nose", [[1, 2]], 1), shape("nose", [[3, 4]], 1)], "two points 'nose' in one group"),
        ([shape("nose", [[1, 2], [3, 4]])], "without a label, points of two numbers or a valid group_id; correct"),
        ([shape("nose", [["x", 2]])], "shapes[0]"),
        ([shape("nose", [[10**400, 2]])], "shapes[0]"),
        ([7], "shapes[0] is 7"),
        ([shape("nose", [[float("inf"), 2]])], "image 'a.png': a keypoint or box has a coordinate that is no number"),
        ([shape("nose", [[1, 2]], [1])], "shapes[0] is {'label': 'nose'"),
        ([], "the project has no keypoints; annotate"),
    ],
)
def test_what_is_refused(tmp_path, make_image, refused, shapes, message):
    make_image(tmp_path / "a.png")
    assert message in refused(write(tmp_path, "a", shapes))


def test_images_that_are_refused(tmp_path, make_image, refused):
    file = write(tmp_path, "a", TWO)
    assert "image 'a.png' is not in" in refused(file)
    make_image(tmp_path / "a.png", (63, 48))
    assert "the image is 63 x 48 pixels, its annotation says 64 x 48" in refused(file)
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "a.png: UnidentifiedImageError" in refused(file)
