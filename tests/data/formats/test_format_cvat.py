"""CVAT for images 1.1: skeletons, grouped points, lists of points."""

import pytest

# As CVAT writes it: the points of a skeleton are labels with a parent, its limbs are lines of a drawing
DRAWING = (
    '&lt;line x1="1" y1="1" x2="2" y2="2" data-type="edge" data-node-from="1" data-node-to="3"&gt;&lt;/line&gt;'
    '&lt;circle r="1.5" cx="1" cy="1" data-type="element node" data-element-id="1" data-node-id="1" '
    'data-label-name="nose"&gt;&lt;/circle&gt;'
    '&lt;circle r="1.5" data-type="element node" data-element-id="2" data-node-id="2" data-label-name="ear_l"&gt;'
    '&lt;/circle&gt;&lt;circle data-node-id="3" data-label-name="ear_r"&gt;&lt;/circle&gt;'
)
SKELETON_LABELS = f"""
<label><name>cat</name><type>skeleton</type><attributes></attributes><svg>{DRAWING}</svg></label>
<label><name>nose</name><type>points</type><parent>cat</parent></label>
<label><name>ear_l</name><type>points</type><parent>cat</parent></label>
<label><name>ear_r</name><type>points</type><parent>cat</parent></label>
<label><name>ball</name><type>rectangle</type></label>"""


def write(folder, images, labels=SKELETON_LABELS, name="annotations.xml"):
    folder.mkdir(exist_ok=True)
    text = f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>{images}"
    (folder / name).write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{text}</annotations>', "utf-8")
    return folder / name


def image(content, name="a.png", more=""):
    return f'<image id="0" name="{name}" width="64" height="48" {more}>{content}</image>'


SKELETON = """
<skeleton label="cat" source="manual" z_order="0"{group}>
  <points label="ear_r" source="manual" outside="{outside}" occluded="0" points="30.00,12.00"/>
  <points label="nose" outside="0" occluded="1" points="10.50,20.25"><attribute name="sure">yes</attribute></points>
  <points label="ear_l" outside="0" occluded="0" points="0.00,0.00"/>
</skeleton>"""


def test_skeletons(tmp_path, make_image, converted, keypoints_by_image):
    """In the order of the labels; outside is not labelled, occluded is 1; a box of the same group is the person's."""
    images = image(
        SKELETON.format(group=' group_id="3"', outside=1)
        + '<box label="ball" group_id="3" occluded="0" xtl="5" ytl="6" xbr="35" ybr="26"/>'
        + '<box label="ball" occluded="0" xtl="50" ytl="30" xbr="55" ybr="35"/><polygon label="ball" points="1,2;3,4"/>'
        + SKELETON.format(group="", outside=0),
        more='subset="Validation"',
    )
    make_image(tmp_path / "images" / "Validation" / "a.png")
    done = converted(write(tmp_path, images))
    assert done.data["categories"] == [
        {
            "id": 1,
            "name": "cat",
            "keypoints": ["nose", "ear_l", "ear_r"],
            "skeleton": [[1, 3]],
            "flip_pairs": [["ear_l", "ear_r"]],
        }
    ]
    assert keypoints_by_image(done.data) == {
        "a.png": [
            [(10.0, 19.75, 1), (-0.5, -0.5, 2), (0, 0, 0)],
            [(10.0, 19.75, 1), (-0.5, -0.5, 2), (29.5, 11.5, 2)],
        ]
    }
    assert done.data["annotations"][0]["bbox"] == [5, 6, 30, 20]
    assert done.data["images"][0]["split"] == "val"
    for line in (
        "CVAT for images 1.1 (cvat)",
        "pairs (proposed by name): ear_l / ear_r",
        "limbs (in the project): nose - ear_r",
        "shapes of the type 'polygon': 1 (first: a.png)",
        "boxes 'ball' without keypoints: 1 (first: a.png)",
        "boxes made from the keypoints, with a margin: 1 (first: a.png)",
        "labelled points at exactly (0, 0), often missing ones: 2 (first: a.png)",
    ):
        assert line in done.out


def test_grouped_points(tmp_path, make_image, converted, keypoints_by_image):
    points = [("nose", 1, 10, 0), ("ear", 2, 20, 1), ("ear", 1, 30, 0)]
    shapes = "".join(
        f'<points label="{label}" group_id="{group}" occluded="{hidden}" points="{x}.5,8.5"/>'
        for label, group, x, hidden in points
    )
    shapes += '<box label="dog" group_id="2" xtl="1" ytl="2" xbr="21" ybr="12" rotation="90"/>'
    done = converted(write(make_image(tmp_path / "a.png").parent, image(shapes), labels=""))
    assert done.data["categories"][0]["keypoints"] == ["nose", "ear"]
    assert keypoints_by_image(done.data) == {"a.png": [[(10, 8, 2), (30, 8, 2)], [(0, 0, 0), (20, 8, 1)]]}
    # turned by 90 degrees around (11, 7): 10 wide and 20 high
    assert done.data["annotations"][1]["bbox"] == pytest.approx([6, -3, 10, 20])
    assert "rotated boxes, replaced by the upright box around them: 1" in done.out
    assert "keypoints in the order of drawing" in done.out


def test_one_person_needs_no_group(tmp_path, make_image, converted, keypoints_by_image):
    shapes = '<points label="nose" points="1,2"/><points label="ear" points="3,4"/>'
    folder = make_image(tmp_path / "a.png").parent
    done = converted(write(folder, image(shapes), labels=""), "--keypoints", "ear", "nose", "tail")
    assert keypoints_by_image(done.data) == {"a.png": [[(2.5, 3.5, 2), (0.5, 1.5, 2), (0, 0, 0)]]}
    assert done.data["categories"][0]["name"] == "object"


def test_lists_of_points(tmp_path, make_image, converted, refused, keypoints_by_image):
    shapes = '<points label="dog" points="1,2;3,4"/><points label="dog" occluded="1" points="5,6;7,8"/>'
    file = write(make_image(tmp_path / "a.png").parent, image(shapes), labels="")
    done = converted(file)
    assert done.data["categories"][0]["keypoints"] == ["dog_1", "dog_2"]
    assert keypoints_by_image(done.data)["a.png"][1] == [(4.5, 5.5, 1), (6.5, 7.5, 1)]
    assert converted(file, "--keypoints", "a", "b").data["categories"][0]["keypoints"] == ["a", "b"]
    assert "3 names for the 2 points of 'dog'" in refused(file, "--keypoints", "a", "b", "c")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            image('<points label="a" points="1,2"/><points label="a" points="3,4"/>'),
            "annotations.xml: image 'a.png': points without a group: 2, the first is 'a'; annotate with skeletons",
        ),
        (
            image('<points label="a" group_id="1" points="1,2"/><points label="b" points="3,4"/>'),
            "points without a group: 1",
        ),
        (image('<points label="a" group_id="1" points="1,2"/>' * 2), "two points 'a' in one group"),
        (image('<skeleton label="cat"><points label="tail" points="1,2"/></skeleton>'), "its point 'tail' is none of"),
        (image('<skeleton label="dog"/>'), "shape 0 (skeleton 'dog'): meta has no skeleton of this label"),
        (
            image('<skeleton label="cat">' + '<points label="nose" points="1,2"/>' * 2 + "</skeleton>"),
            "two points 'nose'",
        ),
        (image('<skeleton label="cat"><points label="nose"/></skeleton>'), "its points are '', not x,y;x,y"),
        (image('<skeleton label="cat"><points label="nose" points="1,2;3,4"/></skeleton>'), "where one is needed"),
        (image('<box label="ball" xtl="1" ytl="2" xbr="x" ybr="4"/>'), "its xbr is 'x', where a number is needed"),
        (image('<box label="ball" xtl="1" ytl="2" xbr="3"/>'), "its ybr is None, where a number is needed"),
        (image('<points label="a" points="1,x"/>'), "shape 0 (points 'a'): its points are '1,x', not x,y;x,y"),
        (image('<points label="a" points="1,nan"/>'), "its points are '1,nan'"),
        (image('<points label="a" points="1,2"/>', "gone.png"), "image 'gone.png' is not in"),
        (image('<points label="a" points="1,2"/>').replace('"64"', '"63"'), "its annotation says 63 x 48"),
        ("<track id='0' label='a'><points frame='0' points='1,2'/></track>", "it is a 'CVAT for video' export"),
        ("<image", "it can't be read"),
        ("", "it has no images"),
        (
            image('<points label="cat" points="1,2;3,4"/>' + SKELETON.format(group="", outside=0)),
            "its label is that of a skeleton",
        ),
    ],
)
def test_what_is_refused(tmp_path, make_image, refused, images, message):
    make_image(tmp_path / "a.png")
    assert message in refused(write(tmp_path, images), "--from", "cvat")


def test_several_files_with_splits(tmp_path, make_image, converted):
    files = []
    for split in ("train", "val"):
        make_image(tmp_path / split / "images" / f"{split}.png")
        content = image(SKELETON.format(group="", outside=0), f"{split}.png")
        files.append(write(tmp_path / split, content))
    done = converted(*files, "--splits", "train", "val")
    assert [image["split"] for image in done.data["images"]] == ["train", "val"]
    assert [image["file_name"] for image in done.data["images"]] == ["train/images/train.png", "val/images/val.png"]


def test_an_image_found_by_the_end_of_its_name(tmp_path, make_image, converted):
    make_image(tmp_path / "images" / "a.png")
    done = converted(write(tmp_path, image(SKELETON.format(group="", outside=0), "cam1/a.png")))
    assert "images found by the end of their name alone: 1 (first: cam1/a.png at " in done.out
    assert done.data["images"][0]["file_name"] == "a.png"


def test_a_size_in_other_digits_is_not_a_size(tmp_path, make_image, converted):
    """The superscript two is a digit to Python, and no number."""
    make_image(tmp_path / "a.png")
    content = image('<points label="a" points="1,2"/>').replace('width="64"', 'width="\u00b2"')
    assert len(converted(write(tmp_path, content)).data["annotations"]) == 1
