"""Lists of images and tar archives."""

import io
import tarfile

import pytest
from PIL import Image

from dynpose.config import ConfigError
from dynpose.data.archives import archive_name, find_archives, images_of_archive, is_archive
from dynpose.data.image_lists import read_image_list
from dynpose.data.schema import DatasetError

JPEG = io.BytesIO()
Image.new("RGB", (8, 6)).save(JPEG, "JPEG")


def save_archive(path, names, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(JPEG.getvalue())
            archive.addfile(member, io.BytesIO(JPEG.getvalue()))
    return str(path)


def test_names_in_a_list(tmp_path):
    (tmp_path / "lists").mkdir()
    lines = ["a.jpg", "", "./sub//b.PNG", "/data/c.jpg", "../d.jpg", "a.jpg", "notes.md", "größe.jpg "]
    (tmp_path / "lists" / "all.txt").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    images, skipped = read_image_list(tmp_path / "lists" / "all.txt")
    outside = (tmp_path / "d.jpg").as_posix().lstrip("/")
    assert [name for name, _ in images] == ["a.jpg", "sub/b.PNG", "data/c.jpg", outside]
    assert [str(path) for _, path in images] == [
        str(tmp_path / "lists" / "a.jpg"),
        str(tmp_path / "lists" / "sub" / "b.PNG"),
        "/data/c.jpg",
        str(tmp_path / "d.jpg"),
    ]
    # a blank at the end belongs to the name
    assert [file.reason for file in skipped] == [
        "repeats a.jpg",
        "not an image that is read (.md)",
        "not an image that is read (.jpg )",
    ]
    assert skipped[0].name.endswith("all.txt:6")


def test_a_list_without_images(tmp_path):
    (tmp_path / "empty.txt").write_text("\nreadme.md\n")
    with pytest.raises(FileNotFoundError, match=r"empty.txt: the list names no images"):
        read_image_list(tmp_path / "empty.txt")


@pytest.fixture
def webdataset():
    return pytest.importorskip("webdataset")


def test_names_of_archives(webdataset, tmp_path):
    a = [save_archive(tmp_path / f"a-{index}.tar", ["x.jpg"]) for index in range(3)]
    b = save_archive(tmp_path / "b.tar.gz", ["x.jpg"], "w:gz")
    pattern = str(tmp_path / "a-{0..2}.tar")
    assert is_archive(pattern)
    assert is_archive("B.TGZ")
    assert not is_archive("a.jpg")
    assert find_archives([pattern]) == find_archives([str(tmp_path / "a-*.tar"), a[0]]) == a
    assert [archive_name(name) for name in (a[1], b, "pipe:aws s3 cp s3://bucket/c-{7}.tar.gz -")] == [
        "a-1",
        "b",
        "c-{7}",
    ]
    urls = find_archives(["https://example.org/data/i-{00..01}.tar"])
    assert [archive_name(url) for url in urls] == ["i-00", "i-01"]
    with pytest.raises(FileNotFoundError, match=r"c.tar: no such archive"):
        find_archives([str(tmp_path / "c.tar")])
    other = save_archive(tmp_path / "other" / "a-0.tar", ["x.jpg"])
    with pytest.raises(ConfigError, match="have the same name"):
        find_archives([a[0], other])


@pytest.mark.parametrize(("ending", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_images_of_an_archive(webdataset, tmp_path, ending, mode):
    names = ["one.jpg", "one.json", "dir/a.b.JPG", "../../out.png", "/root.jpg", "__secret__/x.txt"]
    archive = save_archive(tmp_path / f"s-1{ending}", names, mode)
    images = list(images_of_archive(archive))
    # as they are spelt, and never outside of the archive's folder
    assert [image.name for image in images] == ["s-1/one.jpg", "s-1/dir/a.b.JPG", "s-1/out.png", "s-1/root.jpg"]
    assert all(image.content == JPEG.getvalue() for image in images)
    command = find_archives([f"pipe:cat {archive}"])
    assert [image.name for image in images_of_archive(command[0])] == [image.name for image in images]


def test_damaged_archives(webdataset, tmp_path):
    whole = (tmp_path / "w.tar", tmp_path / "cut.tar")
    save_archive(whole[0], [f"{index}.jpg" for index in range(4)])
    data = whole[0].read_bytes()
    member = 512 + -(-len(JPEG.getvalue()) // 512) * 512
    # in the data of the third file, and between the second and the third
    for end, number in ((2 * member + 700, 2), (2 * member, 2), (2 * member + 100, 2)):
        whole[1].write_bytes(data[:end])
        images = images_of_archive(str(whole[1]))
        assert [next(images).name for _ in range(number)] == ["cut/0.jpg", "cut/1.jpg"]
        with pytest.raises(DatasetError, match=rf"{whole[1]}: the archive .*copy it again"):
            next(images)
    whole[1].write_bytes(b"no archive at all" * 100)
    with pytest.raises(DatasetError, match="the archive can't be read to its end"):
        list(images_of_archive(str(whole[1])))
