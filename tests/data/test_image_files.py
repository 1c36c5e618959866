"""Which files of folders and globs are images to read, under which names, and the reasons for skipping all others."""

import glob
import os
from pathlib import Path

import pytest
from PIL import Image, features

from dynpose.data.image_files import find_images, frames_note


@pytest.fixture
def photos(tmp_path):
    """Three images, two of which have the same name in two folders."""
    for name in ("a/x.png", "b/x.png", "b/deep/y.jpg"):
        save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path)


def found(*inputs, **options):
    return [name for name, _ in find_images([str(item) for item in inputs], **options).images]


def skipped(*inputs, **options):
    files = find_images([str(item) for item in inputs], **options).skipped
    return {name: (reason, is_failure) for name, reason, is_failure in files}


def test_a_file_has_its_own_name(photos):
    assert find_images([str(photos / "a" / "x.png")]).images == [("x.png", photos / "a" / "x.png")]


def test_a_folders_names_start_below_it(photos):
    assert found(photos / "b") == ["deep/y.jpg", "x.png"]


def test_names_of_several_inputs_start_below_their_common_folder(photos):
    assert found(photos / "b", photos / "a") == ["b/deep/y.jpg", "b/x.png", "a/x.png"]
    assert found(photos / "a/x.png", photos / "b/x.png") == ["a/x.png", "b/x.png"]


def test_globs(photos):
    assert found(photos / "*/x.png") == ["a/x.png", "b/x.png"]
    assert found(photos / "**/*.jpg") == ["b/deep/y.jpg"]
    assert found(photos / "**/deep/**/*.jpg") == ["b/deep/y.jpg"]


@pytest.mark.parametrize(
    "pattern", ["**", "**/*", "b/**", "*/**/*.png", "**/.*", ".hidden/**", "**/[xy].???", "**.png"]
)
def test_globs_are_pythons(photos, pattern):
    for name in ("top.png", ".hidden/z.png", "b/.hidden/z.png", "b/.z.png", "a/c/x.jpeg"):
        save(photos / name)
    expected = sorted(Path(path) for path in glob.glob(str(photos / pattern), recursive=True) if os.path.isfile(path))
    assert [path for _, path in find_images([str(photos / pattern)]).images] == expected


def test_an_image_that_is_given_twice_is_taken_once(photos):
    assert found(photos / "a/x.png", photos / "a", photos / "a/*.png") == ["x.png"]


def test_relative_inputs(photos, monkeypatch):
    monkeypatch.chdir(photos / "b")
    assert found(".") == ["deep/y.jpg", "x.png"]
    assert found("deep/y.jpg", "../a") == ["b/deep/y.jpg", "a/x.png"]


def test_other_files_in_a_folder_are_passed_over(photos):
    (photos / "a" / "notes.txt").write_text("")
    assert found(photos / "a") == ["x.png"]


def test_a_name_with_glob_characters_is_a_file_first(photos):
    save(photos / "a" / "z[1].png")
    assert found(photos / "a" / "z[1].png") == ["z[1].png"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("c", "c: no such image or folder"),
        ("a/none*", "no images there; images end in .bmp"),
        ("empty", "no images there"),
        ("a/notes.txt", "no images there"),
    ],
)
def test_nothing_found(photos, item, message):
    (photos / "empty").mkdir()
    (photos / "a" / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=message):
        find_images([str(photos / item)])


def test_every_other_file_has_its_reason(photos):
    for name in ("anim.gif", "film.mp4", "README", "b/deep/notes.txt"):
        (photos / name).write_bytes(b"")
    os.mkfifo(photos / "pipe.png")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "self.txt").symlink_to("self.txt")
    (photos / "a" / "again.png").symlink_to("../b/x.png")
    assert found(photos) == ["a/x.png", "b/deep/y.jpg", "b/x.png"]
    not_read = "not an image that is read"
    assert skipped(photos) == {
        "README": (f"{not_read} (no ending)", False),
        "a/again.png": ("the same file as b/x.png", False),
        "anim.gif": (f"{not_read} (.gif)", False),
        "b/deep/notes.txt": (f"{not_read} (.txt)", False),
        "film.mp4": (f"{not_read} (.mp4)", False),
        "gone.jpg": ("a dangling link (No such file or directory)", True),
        "pipe.png": ("not a file but a pipe, socket or device", False),
        "self.txt": ("a dangling link (Too many levels of symbolic links)", False),
    }


@pytest.mark.parametrize("is_supported", [True, False])
def test_avif_and_jfif_are_read_where_pillow_can(photos, monkeypatch, is_supported):
    monkeypatch.setattr(features, "check", lambda feature: is_supported and feature == "avif")
    (photos / "a" / "1.AVIF").write_bytes(b"")
    (photos / "a" / "2.jfif").write_bytes(b"")
    assert found(photos / "a") == ["1.AVIF"] * is_supported + ["2.jfif", "x.png"]
    assert list(skipped(photos / "a")) == ["1.AVIF"] * (not is_supported)


def test_links_that_loop_count_a_file_once(photos):
    (photos / "b" / "deep" / "loop").symlink_to("../..")
    (photos / "alias").symlink_to("b")
    images = ["a/x.png", "b/deep/y.jpg", "b/x.png"]
    is_folder = f"this is the folder {photos}%s, whose files are listed under another name"
    expected = {"alias/": (is_folder % "/b", False), "b/deep/loop/": (is_folder % "", False)}
    assert found(photos) == images
    assert skipped(photos) == expected
    assert found(photos / "al*" / "**") == ["alias/deep/loop/a/x.png", "alias/deep/y.jpg", "alias/x.png"]
    assert found(photos / "**") == images
    assert skipped(photos / "**") == expected


def test_links_that_lead_out_are_followed(photos, tmp_path):
    save(tmp_path / "elsewhere" / "z.png")
    (tmp_path / "elsewhere" / "back").symlink_to(photos)
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "z.png").symlink_to(tmp_path / "elsewhere" / "z.png")
    assert found(photos / "b", photos / "link") == ["b/deep/y.jpg", "b/x.png", "link/back/a/x.png", "link/z.png"]
    assert found(photos) == ["a/x.png", "b/deep/y.jpg", "b/x.png", "z.png"]
    assert list(skipped(photos)) == ["link/back/", "link/"]


def test_files_that_can_not_be_accessed(photos, monkeypatch):
    """A folder that may be listed but not entered (r--)."""
    stat, lstat = os.stat, os.lstat

    def refusing(function):
        def refuse(path, **options):
            if "deep/" in os.fspath(path):
                raise PermissionError(13, "Permission denied")
            return function(path, **options)

        return refuse

    monkeypatch.setattr(os, "stat", refusing(stat))
    monkeypatch.setattr(os, "lstat", refusing(lstat))
    assert found(photos) == ["a/x.png", "b/x.png"]
    assert skipped(photos) == {"b/deep/y.jpg": ("it can't be accessed (Permission denied)", True)}


def test_a_folder_that_can_not_be_entered_is_named(photos, monkeypatch):
    scandir = os.scandir

    def refuse(folder="."):
        if str(folder).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    # root may enter everything
    monkeypatch.setattr(os, "scandir", refuse)
    assert found(photos) == ["a/x.png", "b/x.png"]
    assert skipped(photos) == {"b/deep/": ("the folder can't be read (Permission denied)", True)}
    with pytest.raises(FileNotFoundError, match=r"no images there; .*/b/deep: the folder can't be read \(Permission"):
        find_images([str(photos / "b" / "deep")])


def test_results_inside_of_an_input_are_passed_over(photos):
    save(photos / "out" / "a" / "x.png")
    (photos / "predictions.json").write_text("")
    assert found(photos, skip=photos / "out") == ["a/x.png", "b/deep/y.jpg", "b/x.png"]
    assert list(skipped(photos, skip=photos / "out")) == ["predictions.json"]
    assert list(skipped(photos, skip=photos)) == []
    assert "out/a/x.png" in found(photos, skip=photos)
    assert found(photos / "*" / "**" / "*.png", skip=photos / "out") == ["a/x.png", "b/x.png"]


@pytest.mark.parametrize(
    ("ending", "note"), [("tif", "the first of 2 pages"), ("gif", "the first of 2 frames"), ("mpo", None)]
)
def test_sequences_are_told_from_single_images(tmp_path, ending, note):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"two.{ending}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"one.{ending}")
    assert frames_note(tmp_path / f"two.{ending}") == note
    assert frames_note(tmp_path / f"one.{ending}") is None
    assert frames_note(tmp_path / "none.png") is None
