"""What inputs stand for."""

import io
import re

import pytest
from PIL import Image
from small_media import make_animation, make_video

from dynpose.config import ConfigError
from dynpose.data import DatasetError
from dynpose.data.image_files import image_endings, is_animation
from dynpose.data.sources import find_sources, tell_animations


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (8, 6)).save(folder / "a.png")
    Image.new("RGB", (8, 6)).save(folder / "still.gif")
    make_video(folder / "Film.MP4", 2)
    for name in ("wave.gif", "wave.webp", "wave.png"):
        make_animation(folder / name, [100, 100])
    (folder / "notes.md").write_text("a")
    return folder


@pytest.fixture
def find(tmp_path):
    """(name, kind) of the sources of inputs, with the given bytes on standard input."""
    spool = tmp_path / "spool"
    spool.mkdir()

    def call(*inputs, stdin=b""):
        found = find_sources([str(item) for item in inputs], spool, stdin=io.BytesIO(stdin))
        return {source.name: (source.kind, source.location) for source in tell_animations(found.sources)}

    return call


def test_a_folder_gives_images_videos_and_animations(folder, find):
    found = find(folder)
    assert {name: kind for name, (kind, _) in found.items()} == {
        "Film.MP4": "video",
        "a.png": "image",
        "still.gif": "image",
        "wave.gif": "animation",
        "wave.png": "animation",
        "wave.webp": "animation",
    }
    assert found["Film.MP4"][1] == folder / "Film.MP4"
    assert list(find(folder / "*.gif")) == ["still.gif", "wave.gif"]
    assert list(find(folder / "a.png", folder / "Film.MP4")) == ["a.png", "Film.MP4"]
    (skipped,) = find_sources([str(folder)], folder).skipped
    assert skipped[:2] == ("notes.md", "not an image that is read (.md)")


def test_what_is_not_there(folder, find):
    with pytest.raises(FileNotFoundError, match=r"film2\.mp4: no such image or folder"):
        find(folder / "film2.mp4")
    with pytest.raises(FileNotFoundError, match=r"images end in \.bmp .*, videos in .*\.mp4"):
        find(folder / "notes.md")


def test_an_animation_is_not_opened_by_its_ending_alone(folder):
    assert not is_animation(folder / "notes.md")
    (folder / "corrupt.gif").write_bytes(b"GIF89a")
    assert not is_animation(folder / "corrupt.gif")


@pytest.mark.parametrize(("item", "number"), [("0", 0), ("camera:0", 0), ("12", 12)])
def test_cameras(find, item, number):
    assert find(item) == {f"camera_{number}": ("camera", number)}


def test_a_file_comes_before_a_camera(folder, find, monkeypatch):
    (folder / "0").mkdir()
    Image.new("RGB", (8, 6)).save(folder / "0" / "b.png")
    monkeypatch.chdir(folder)
    assert find("0") == {"b.png": ("image", folder / "0" / "b.png")}
    assert find("camera:0") == {"camera_0": ("camera", 0)}


@pytest.mark.parametrize(
    ("url", "pattern", "kind"),
    [
        ("http://example.com/a/street.JPG", "example.com/a/street.JPG", "image"),
        ("https://user:secret@example.com:8080/../x.png", "example.com_8080/x.png", "image"),
        ("https://example.com/photo?id=1", "example.com/photo-[0-9a-f]{8}.jpg", "image"),
        ("https://example.com", "example.com/index.jpg", "image"),
        ("https://example.com/a/film.mp4?t=1", "example.com/a/film-[0-9a-f]{8}.mp4", "video"),
        ("https://example.com/live.m3u8", "example.com/live.m3u8", "stream"),
        ("rtsp://user:secret@10.0.0.7:554/live", "10.0.0.7_554/live", "stream"),
    ],
)
def test_urls(find, url, pattern, kind):
    ((name, found),) = find(url).items()
    assert re.fullmatch(pattern, name)
    assert found == (kind, url)


def test_queries_are_parts_of_the_name(find):
    found = find("https://example.com/photo?id=1", "https://example.com/photo?id=2", "https://example.com/photo?id=1")
    assert len(found) == 2


def test_an_invalid_address(find):
    with pytest.raises(DatasetError, match="not a valid address"):
        find("http://example.com:port/a.jpg")


def test_images_and_videos_on_standard_input(folder, find):
    for name, expected, kind in (
        ("a.png", "stdin.png", "image"),
        ("wave.gif", "stdin.gif", "animation"),
        ("Film.MP4", "stdin.mp4", "video"),
    ):
        content = (folder / name).read_bytes()
        ((found, (found_kind, path)),) = find("-", stdin=content).items()
        assert (found, found_kind) == (expected, kind)
        assert path.read_bytes() == content
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 6)).save(jpeg, "JPEG")
    assert list(find("-", stdin=jpeg.getvalue())) == ["stdin.jpg"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"], ids=["lines", "Windows", "find -print0"])
def test_names_on_standard_input(folder, find, separator):
    names = [str(folder / "a.png"), str(folder / "Film.MP4"), "https://example.com/x.png", "0"]
    found = find("-", stdin=separator.join([*names, ""]).encode())
    assert list(found) == ["a.png", "Film.MP4", "example.com/x.png", "camera_0"]


def test_standard_input_that_has_nothing(find, tmp_path):
    with pytest.raises(DatasetError, match="--input -: standard input: it is empty; pipe"):
        find("-")

    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    with pytest.raises(DatasetError, match="it is a terminal; pipe"):
        find_sources(["-"], tmp_path, stdin=Terminal())


def test_endings_of_images_are_as_before():
    assert ".gif" not in image_endings()


def test_lists_and_archives_among_other_inputs(folder, find, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "list.txt").write_text("in/still.gif\nin/wave.gif\nin/Film.MP4\nin/gone.jpg\nnotes.md\n")
    (tmp_path / "photos.tar").touch()
    found = find(tmp_path / "list.txt", "3", tmp_path / "photos.tar", folder / "a.png")
    assert {name: kind for name, (kind, _) in found.items()} == {
        "a.png": "image",
        "in/still.gif": "image",
        "in/wave.gif": "animation",
        "in/Film.MP4": "video",
        "in/gone.jpg": "image",
        "camera_3": "camera",
        "photos": "archive",
    }


def test_two_sources_of_one_name(folder, find, tmp_path):
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(ConfigError, match=r"in/a\.png and .*/a\.png would both be called a\.png"):
        find(folder / "a.png", tmp_path / "list.txt")
    # the same file twice is one source
    (folder / "list.txt").write_text("a.png\n")
    assert list(find(folder / "a.png", folder / "list.txt")) == ["a.png"]
