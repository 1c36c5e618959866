"""DeepLabCut: all kinds of headers, the order of body parts, individuals, and both kinds of tables."""

import pytest
import yaml

SINGLE = """scorer,me,me,me,me,me,me
bodyparts,snout,snout,leftear,leftear,tail,tail
coords,x,y,x,y,x,y
labeled-data/vid/img01.png,1.5,2.25,0.0,0.0,,
"labeled-data\\vid\\img02.png",,,,,,
"""
MULTI = """scorer,,,me,me,me,me,me,me,me,me,me,me
individuals,,,m1,m1,m1,m1,m2,m2,m2,m2,single,single
bodyparts,,,snout,snout,tail,tail,snout,snout,tail,tail,corner,corner
coords,,,x,y,x,y,x,y,x,y,x,y
labeled-data,vid,img01.png,10,11,12.125,13,,,30,31,1,1
labeled-data,vid,img02.png,,,,,20,21,22,23,1,1
"""
CONFIG = {
    "Task": "reaching",
    "scorer": "me",
    "bodyparts": ["leftear", "snout", "tail"],
    "skeleton": [["snout", "tail"], ["snout", "gone"]],
}


def write(folder, table, make_image, config=CONFIG):
    for name in ("img01.png", "img02.png"):
        make_image(folder / "labeled-data" / "vid" / name)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    file = folder / "labeled-data" / "vid" / "CollectedData_me.csv"
    if table is not None:
        file.write_text(table)
    return file


def test_a_project(tmp_path, make_image, converted, keypoints_by_image):
    """The order is the header's, not that of config.yaml; empty cells are not labelled, (0, 0) is; nothing is moved."""
    write(tmp_path / "dlc", SINGLE, make_image)
    done = converted(tmp_path / "dlc")
    assert done.data["categories"][0]["keypoints"] == ["snout", "leftear", "tail"]
    assert done.data["categories"][0]["skeleton"] == [[1, 3]]
    assert keypoints_by_image(done.data) == {"img01.png": [[(1.5, 2.25, 2), (0, 0, 2), (0, 0, 0)]], "img02.png": []}
    for line in (
        "DeepLabCut (deeplabcut)",
        "origin: the centre of the first pixel, as COCO's: x and y are unchanged",
        "limbs (config.yaml): snout - tail",
        "limbs of other than its body parts: 1",
        "images without a labelled point: 1 (first: labeled-data\\vid\\img02.png)",
        "labelled points at exactly (0, 0), often missing ones: 1 (first: img01.png)",
    ):
        assert line in done.out
    assert done.out.count("(0, 0)") == 1


def test_several_animals(tmp_path, make_image, converted, keypoints_by_image):
    """Individuals are tracks of one category, and "single" is none of them."""
    done = converted(write(tmp_path / "dlc", MULTI, make_image, config=None))
    assert [category["keypoints"] for category in done.data["categories"]] == [["snout", "tail"]]
    assert keypoints_by_image(done.data) == {
        "img01.png": [[(10, 11, 2), (12.125, 13, 2)], [(0, 0, 0), (30, 31, 2)]],
        "img02.png": [[(20, 21, 2), (22, 23, 2)]],
    }
    assert [item["track_id"] for item in done.data["annotations"]] == [1, 2, 2]
    assert [track["name"] for track in done.data["tracks"]] == ["m1", "m2"]
    assert "points of no individual ('single'): 1 (first: " in done.out
    assert "2 images, 3 people of 2 tracks" in done.out


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (SINGLE.replace("coords,x,y", "coords,x,likelihood"), "it holds predictions (likelihood), not labels"),
        (SINGLE.replace("coords", "words"), "its header is not scorer, (individuals,) bodyparts, coords"),
        ("", "its header is not scorer"),
        (SINGLE.replace("1.5,2.25", "1.5,"), "row 'labeled-data/vid/img01.png': snout is at 1.5, nan"),
        (SINGLE.replace("1.5,2.25", "1.5,x"), "row 'labeled-data/vid/img01.png': 'x' is no number"),
        (SINGLE.replace("1.5,2.25", "1.5"), "has 5 values for 6 columns"),
        (SINGLE.replace("img01", "gone"), "image 'labeled-data/vid/gone.png' is not in"),
        (MULTI.replace("m2,m2,m2,m2", "m2,m2,m3,m3"), "the body parts of 'm2' are snout, and those before snout, tail"),
        (None, "its scorer is 'me', and no table is labeled-data/*/CollectedData_<scorer>.csv or .h5"),
    ],
)
def test_what_is_refused(tmp_path, make_image, refused, table, message):
    write(tmp_path, table, make_image)
    assert message in refused(tmp_path / "config.yaml")


@pytest.mark.parametrize("scorer", ["*", "**/m", "m?", "x" * 300, ["me"]])
def test_scorers_that_are_no_file_names(tmp_path, make_image, refused, scorer):
    write(tmp_path, SINGLE, make_image, {**CONFIG, "scorer": scorer})
    assert "its scorer is" in refused(tmp_path / "config.yaml")


def test_several_tables(tmp_path, make_image, refused):
    write(tmp_path, SINGLE, make_image)
    other = tmp_path / "labeled-data" / "zoo" / "CollectedData_me.csv"
    other.parent.mkdir()
    other.write_text(SINGLE.replace("snout", "tail_").replace("tail,tail", "snout,snout"))
    err = refused(tmp_path)
    assert "zoo/CollectedData_me.csv: the body parts are tail_, leftear, snout, and those before" in err


class TestHdf5:
    """pandas' fixed format, as DeepLabCut writes it, laid out by hand."""

    @pytest.fixture
    def table(self, tmp_path, make_image):
        h5py = pytest.importorskip("h5py", reason="the extra 'sleap' is not installed")
        file = write(tmp_path, None, make_image).with_suffix(".h5")
        with h5py.File(file, "w") as content:
            frame = content.create_group("df_with_missing")
            frame.attrs["nblocks"] = 2
            levels = {"0": [b"me"], "1": [b"leftear", b"snout"], "2": [b"x", b"y"]}
            for axis, labels in (
                ("axis0", ([0] * 4, [1, 1, 0, 0], [0, 1, 0, 1])),
                ("block0_items", ([0] * 2, [0, 0], [0, 1])),
                ("block1_items", ([0] * 2, [1, 1], [0, 1])),
            ):
                for number, (level, label) in enumerate(zip(levels.values(), labels)):
                    frame[f"{axis}_level{number}"] = level
                    frame[f"{axis}_label{number}"] = label
            frame["axis1"] = [b"labeled-data/vid/img01.png", b"labeled-data/vid/img02.png"]
            frame["block0_values"] = [[3.5, 4.5], [float("nan")] * 2]
            frame["block1_values"] = [[1, 2], [5, 6]]  # whole numbers are stored apart
        return file

    def test_reading(self, table, converted, keypoints_by_image):
        done = converted(table)
        assert done.data["categories"][0]["keypoints"] == ["snout", "leftear"]
        people = {"img01.png": [[(1, 2, 2), (3.5, 4.5, 2)]], "img02.png": [[(5, 6, 2), (0, 0, 0)]]}
        assert keypoints_by_image(done.data) == people

    def test_damage(self, table, refused):
        content = table.read_bytes()
        table.write_bytes(content[: len(content) // 2])
        assert "it is no table of DeepLabCut" in refused(table)
