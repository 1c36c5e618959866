"""SLEAP: sleap-io's Labels become people, without the losses of its COCO writer.

sleap-io is an extra. Its classes are replaced by the attributes that the reader uses, where it is not installed;
projects/custom_keypoints/round_trips.sh compares with the files that it writes.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dynpose.data import DatasetError
from dynpose.data.formats import ReadOptions
from dynpose.data.formats.sleap import read_labels

NODES = ["head", "leftEar", "rightEar", "tail"]


def skeleton(**more):
    found = {
        "name": "mouse",
        "node_names": NODES,
        "edge_inds": [(0, 1), (0, 3)],
        "symmetry_names": [("rightEar", "leftEar"), ("leftEar", "rightEar")],
    }
    return SimpleNamespace(**found | more)


def instance(points, visible, track=None, **more):
    record = np.zeros(len(points), dtype=[("xy", "<f8", (2,)), ("visible", "bool")])
    record["xy"], record["visible"] = points, visible
    track = None if track is None else SimpleNamespace(name=track)
    return SimpleNamespace(points=record, track=track, skeleton=skeleton(**more))


def labels(frames, skeletons=None):
    return SimpleNamespace(skeletons=[skeleton()] if skeletons is None else skeletons, labeled_frames=frames)


def frame(video, index, users=(), predicted=()):
    return SimpleNamespace(
        video=video, frame_idx=index, user_instances=list(users), predicted_instances=list(predicted)
    )


NAN = float("nan")
MOUSE = instance([(1.25, 2.5), (10, 11), (NAN, NAN), (0, 0)], [True, False, True, True], "a")


def test_points_tracks_and_names(tmp_path, make_image):
    """Not visible with coordinates is occluded; NaN is not labelled; (0, 0) is a point."""
    make_image(tmp_path / "frames" / "f3.png")
    video = SimpleNamespace(filename=[f"C:\\lab\\frames\\f{i}.png" for i in range(5)])
    found = labels([frame(video, 3, [MOUSE], [MOUSE]), frame(video, 4, predicted=[MOUSE])])
    project = read_labels(found, tmp_path / "mouse.slp", ReadOptions())
    (category,) = project.categories
    assert category.keypoints == tuple(NODES)
    assert category.flip_pairs == (("leftEar", "rightEar"),)
    assert category.skeleton == ((0, 1), (0, 3))
    (image,) = project.images
    assert image.path == tmp_path / "frames" / "f3.png"
    (person,) = image.people
    assert person.track == "a"
    np.testing.assert_array_equal(person.keypoints, [(1.25, 2.5, 2), (10, 11, 1), (0, 0, 0), (0, 0, 2)])
    assert project.origin == "index"
    assert project.notes.lost == {
        "predicted instances": (2, "mouse: frame 3 of f0.png"),
        "frames without instances of a user": (1, "mouse: frame 4 of f0.png"),
    }


class Video(SimpleNamespace):
    """A video whose frames are one grey value."""

    def __getitem__(self, index):
        return np.full((48, 64, self.channels), index, np.uint8)

    def replace_filename(self, name, open):
        self.filename = name


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_frames_of_videos_are_extracted(tmp_path, channels, mode):
    (tmp_path / "v.mp4").touch()
    video = Video(filename="/lab/v.mp4", channels=channels)
    project = read_labels(labels([frame(video, 7, [MOUSE])]), tmp_path / "mouse.slp", ReadOptions())
    (image,) = project.images
    assert image.name == "mouse/v_0/000007.png"
    assert video.filename == str(tmp_path / "v.mp4")
    content = image.content()
    assert isinstance(content, Image.Image)
    assert (content.size, content.mode, content.getextrema()) == (
        (64, 48),
        mode,
        (7, 7) if channels == 1 else ((7, 7),) * 3,
    )


@pytest.mark.parametrize(("other", "found"), [("other.pkg.slp", "other.pkg.slp"), ("gone.pkg.slp", "mouse.slp")])
def test_frames_in_packages(tmp_path, other, found):
    """Of another file, or of this one under its earlier name."""
    for name in ("other.pkg.slp", "mouse.slp"):
        (tmp_path / name).touch()
    video = Video(filename=f"/lab/{other}", channels=3)
    read_labels(labels([frame(video, 7, [MOUSE])]), tmp_path / "mouse.slp", ReadOptions())
    assert video.filename == str(tmp_path / found)


def test_a_frame_beyond_the_images(tmp_path, make_image):
    video = SimpleNamespace(filename=[str(make_image(tmp_path / "f0.png"))])
    with pytest.raises(DatasetError, match=r"mouse.slp: frame 1 of a video of 1 images; correct it in SLEAP"):
        read_labels(labels([frame(video, 1, [MOUSE])]), tmp_path / "mouse.slp", ReadOptions())


def test_a_missing_video(tmp_path):
    video = Video(filename="/lab/v.mp4", channels=3)
    with pytest.raises(
        DatasetError, match=r"mouse.slp: image '/lab/v.mp4' is not in .*; give its folder by --image-dir"
    ):
        read_labels(labels([frame(video, i, [MOUSE]) for i in (1, 2)]), tmp_path / "mouse.slp", ReadOptions())


def test_skeletons_of_one_name(tmp_path):
    skeletons = [skeleton(), skeleton(node_names=NODES[::-1])]
    with pytest.raises(DatasetError, match="it has two skeletons 'mouse' with different nodes"):
        read_labels(labels([], skeletons), tmp_path / "mouse.slp", ReadOptions())


def test_without_sleap_io(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sleap_io", None)
    (tmp_path / "mouse.slp").touch()
    assert "SLEAP's files are read through sleap-io; pip install 'dynpose[sleap]'" in refused(tmp_path / "mouse.slp")


def test_a_file_of_sleap_io(tmp_path, make_image, converted, keypoints_by_image):
    sleap_io = pytest.importorskip("sleap_io", reason="the extra 'sleap' is not installed")
    mouse = sleap_io.Skeleton(
        nodes=list(NODES), edges=[("head", "tail")], symmetries=[("leftEar", "rightEar")], name="mouse"
    )
    points = np.array([(1.25, 2.5), (10, 11), (NAN, NAN), (0, 0)])
    person = sleap_io.Instance.from_numpy(points, skeleton=mouse, track=sleap_io.Track("a"))
    person.points["visible"][1] = False
    video = sleap_io.Video.from_filename([str(make_image(tmp_path / "f0.png"))])
    file = sleap_io.Labels([sleap_io.LabeledFrame(video=video, frame_idx=0, instances=[person])])
    file.save(str(tmp_path / "mouse.slp"), verbose=False)
    done = converted(tmp_path / "mouse.slp")
    assert keypoints_by_image(done.data) == {"f0.png": [[(1.25, 2.5, 2), (10, 11, 1), (0, 0, 0), (0, 0, 2)]]}
    assert done.data["categories"][0]["flip_pairs"] == [["leftEar", "rightEar"]]
