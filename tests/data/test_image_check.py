"""Truncated, broken and wrongly annotated images are found without decoding the good ones, once a file."""

import io
import logging
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as read_as_detectron2
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from dynpose.data import DatasetError, check_images, image_check
from dynpose.data.image_check import find_broken_images, find_image_faults, image_fault
from dynpose.data.image_reading import read_image

WIDTH, HEIGHT = 60, 40


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DYNPOSE_CACHE", str(folder))
    return folder


def noise(width=WIDTH, height=HEIGHT):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def record(path, width=WIDTH, height=HEIGHT):
    return {"file_name": str(path), "width": width, "height": height}


@pytest.fixture
def images(tmp_path):
    """One good file of each kind."""
    for ending in ("jpg", "jpeg", "png", "bmp"):
        noise().save(tmp_path / f"good.{ending}")
    return [record(path) for path in sorted(tmp_path.iterdir())]


@pytest.fixture
def decoded(monkeypatch):
    """Format and size of the images that are decoded."""
    seen, load = [], ImageFile.ImageFile.load

    def watched(image):
        # the one-pixel images that stand for the metadata of others
        if image.size != (1, 1):
            seen.append((image.format, image.size))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    return seen


def test_good_images_pass_and_are_not_decoded(images, decoded):
    check_images(images)
    check_images([])
    assert decoded == [("BMP", (WIDTH, HEIGHT))]
    # the content of a file counts, not its name
    decoded.clear()
    for name in ("good.jpg", "good.png"):
        folder = os.path.dirname(images[0]["file_name"])
        shutil.copy(os.path.join(folder, name), os.path.join(folder, "other.bmp"))
        assert image_fault(record(os.path.join(folder, "other.bmp"))) is None
    assert decoded == []


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_truncated_images_are_named(images, tmp_path, ending):
    path = tmp_path / f"good.{ending}"
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DatasetError, match=rf"1 of 4 images can't be read: .*good\.{ending} \(.*copy them again"):
        check_images(images)


def test_every_fault_is_counted(images, tmp_path):
    names = [tmp_path / name for name in ("gone.jpg", "empty.png", "text.jpg", "folder.jpg")]
    names[1].touch()
    names[2].write_text("no image")
    names[3].mkdir()
    with pytest.raises(
        DatasetError, match=r"4 of 8 images can't be read: .*gone\.jpg .*empty\.png .*text\.jpg .*; \.\.\.: "
    ):
        check_images([*images, *({"file_name": str(name)} for name in names)])


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_bytes_after_the_end_are_no_fault(images, tmp_path, ending):
    path = tmp_path / f"good.{ending}"
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    check_images(images)


def test_a_png_without_its_last_chunk_alone_is_read(tmp_path):
    path = tmp_path / "a.png"
    noise().save(path)
    path.write_bytes(path.read_bytes()[:-12])
    assert image_fault(record(path)) is None
    assert read_image(record(path), "RGB").shape == (HEIGHT, WIDTH, 3)


# --- orientation, by detectron2's own reading ---


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def metadata_chunk(kind, orientation):
    exif = exif_bytes(orientation)
    profile = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    return {
        "eXIf": lambda: chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")),
        "tEXt": lambda: chunk(b"tEXt", b"Raw profile type exif\0" + profile),
        "zTXt": lambda: chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        "iTXt": lambda: chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(orientation).encode()),
    }[kind]()


def png_with(path, place, *chunks):
    """A PNG with chunks "before" or "after" its pixels, which are in several chunks."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(noise()))
    pixels = zlib.compress(rows)
    data = [chunk(b"IDAT", pixels[start : start + 1000]) for start in range(0, len(pixels), 1000)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    parts = [header, *chunks, *data] if place == "before" else [header, *data, *chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


def assert_judged_as_detectron2_reads(path, decoded):
    height, width = read_as_detectron2(str(path)).shape[:2]
    assert {height, width} == {HEIGHT, WIDTH}
    decoded.clear()
    assert image_fault(record(path, width, height)) is None
    problem = image_fault(record(path, height, width))
    assert f"the image is {width} x {height} pixels, its annotation says {height} x {width}" in problem
    assert decoded == []
    return width, height


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["eXIf", "tEXt", "zTXt", "iTXt"])
def test_orientation_of_a_png(tmp_path, decoded, kind, place, orientation):
    path = png_with(tmp_path / "a.png", place, metadata_chunk(kind, orientation))
    expected = (HEIGHT, WIDTH) if orientation in (6, 8) else (WIDTH, HEIGHT)
    assert assert_judged_as_detectron2_reads(path, decoded) == expected


def test_several_orientations_of_a_png(tmp_path, decoded):
    chunks = [metadata_chunk("iTXt", 6), metadata_chunk("eXIf", 1)]
    assert_judged_as_detectron2_reads(png_with(tmp_path / "a.png", "after", *chunks), decoded)
    assert_judged_as_detectron2_reads(png_with(tmp_path / "b.png", "before", *chunks), decoded)
    spoilt = chunk(b"eXIf", b"no EXIF data")
    assert_judged_as_detectron2_reads(png_with(tmp_path / "c.png", "after", spoilt), decoded)
    comment = chunk(b"tEXt", b"Comment\0" + b"a" * 3_000_000)
    assert_judged_as_detectron2_reads(png_with(tmp_path / "d.png", "after", comment, chunks[0]), decoded)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_orientation_as_pillow_writes_it(tmp_path, decoded, ending, orientation):
    path = tmp_path / f"a.{ending}"
    noise().save(path, exif=exif_bytes(orientation))
    assert_judged_as_detectron2_reads(path, decoded)


# --- TIFF, which Pillow turns itself, while detectron2 turns it once more ---


@pytest.fixture
def as_jpeg_and_tiff(tmp_path):
    """Write the same stored pixels as a JPEG and as a TIFF file: their paths."""

    def write(orientation, **of_tiff):
        paths = tmp_path / "a.jpg", tmp_path / "a.tiff"
        noise().save(paths[0], exif=exif_bytes(orientation))
        with Image.open(paths[0]) as image:
            stored = Image.fromarray(np.asarray(image))
        stored.save(paths[1], **({"exif": exif_bytes(orientation)} | of_tiff))
        return paths

    return write


# libtiff, which compresses, writes no other orientations
@pytest.mark.parametrize(
    ("compression", "orientation"), [*((None, i) for i in range(10)), *(("tiff_lzw", i) for i in range(1, 9))]
)
def test_a_tiff_is_turned_as_the_jpeg_of_the_same_picture(as_jpeg_and_tiff, compression, orientation):
    jpeg, tiff = as_jpeg_and_tiff(orientation, compression=compression)
    expected = read_as_detectron2(str(jpeg), "BGR")
    height, width = expected.shape[:2]
    assert (width, height) == ((HEIGHT, WIDTH) if orientation in (5, 6, 7, 8) else (WIDTH, HEIGHT))
    for path in (jpeg, tiff):
        for decode in (False, True):
            assert image_fault(record(path, width, height), decode) is None
            problem = image_fault(record(path, height, width), decode)
            assert f"the image is {width} x {height} pixels, its annotation says {height} x {width}" in problem
        check_images([record(path, width, height)])
        assert np.array_equal(read_image(record(path, width, height), "BGR"), expected)
        with pytest.raises(DatasetError, match=f"the image is {width} x {height} pixels, its annotation says"):
            read_image(record(path, height, width), "BGR")


def test_a_tiff_upside_down(tmp_path):
    """Its first pixel is the last one of the picture."""
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = 10, 20, 30
    Image.fromarray(stored).save(tmp_path / "a.tiff", exif=exif_bytes(3))
    shown = read_image({"file_name": str(tmp_path / "a.tiff")}, "RGB")
    assert shown[1, 2].tolist() == [10, 20, 30]
    assert shown.sum() == 60


def test_a_tiff_with_an_orientation_in_xmp_alone(as_jpeg_and_tiff):
    """Pillow gives its size as stored, and turns it on loading."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = XMP.format(6).encode()
    jpeg, tiff = as_jpeg_and_tiff(6, exif=b"", tiffinfo=tags)
    assert image_fault(record(tiff, HEIGHT, WIDTH)) is None
    assert image_fault(record(tiff)) is not None
    assert np.array_equal(read_image(record(tiff, HEIGHT, WIDTH), "RGB"), read_as_detectron2(str(jpeg), "RGB"))


def test_the_cause_of_a_swapped_size_of_a_tiff(as_jpeg_and_tiff):
    _, tiff = as_jpeg_and_tiff(8)
    (fault,) = find_image_faults([record(tiff)])
    assert (fault.size, fault.is_turned) == ((HEIGHT, WIDTH), True)
    assert "EXIF orientation was not applied in annotating" in image_check.size_cause([fault], [record(tiff)])


@pytest.mark.parametrize("kind", ["L", "1", "P", "CMYK", "RGBA", "LAB"])
def test_tiffs_of_other_modes_are_read_as_by_detectron2(tmp_path, kind):
    picture = noise().convert(kind)
    picture.save(tmp_path / "a.tiff")
    expected = read_as_detectron2(str(tmp_path / "a.tiff"), "BGR")
    assert np.array_equal(read_image(record(tmp_path / "a.tiff"), "BGR"), expected)


# --- header first ---

OTHERS = ("bmp", "gif", "tiff", "webp")


@pytest.mark.parametrize("ending", OTHERS)
def test_other_kinds_are_decoded_only_if_their_size_is_right(tmp_path, decoded, ending):
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    assert "60 x 40 pixels, its annotation says 61 x 40" in image_fault(record(path, 61))
    assert decoded == []
    assert image_fault(record(path)) is None
    assert set(decoded) == {(ending.upper(), (WIDTH, HEIGHT))}  # TIFF's calls itself
    path.write_bytes(path.read_bytes()[:-1500])
    assert image_fault(record(path)) is not None


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_image_without_end_is_decoded_only_if_its_size_is_right(tmp_path, decoded, ending):
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    assert "annotation says 61 x 40" in image_fault(record(path, 61))
    assert decoded == []
    # a JPEG file at an eighth of its size: 8 x 5 of 60 x 40
    assert "truncated" in image_fault(record(path))
    assert decoded == [("JPEG", (8, 5)) if ending == "jpg" else ("PNG", (WIDTH, HEIGHT))]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_found_at_an_eighth_of_its_size(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    noise(800, 600).save(path, progressive=progressive)
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 3000):
        path.write_bytes(content[:length])
        assert "truncated" in image_fault(record(path, 800, 600))


@pytest.mark.parametrize(
    ("name", "keywords", "expected"),
    [
        ("a.png", {}, "it does not end as a file of its format does: it is truncated"),
        ("a.jpg", {"progressive": True}, "it does not end as a file of its format does: it is truncated"),
        # 8 x 5 pixels are not too many
        ("a.jpg", {}, "OSError: image file is truncated"),
        ("a.bmp", {}, None),
    ],
)
def test_a_too_large_image_is_not_decoded(tmp_path, decoded, monkeypatch, name, keywords, expected):
    monkeypatch.setattr(image_check, "_PIXELS_AT_ONCE", WIDTH * HEIGHT - 1)
    noise().save(tmp_path / name, **keywords)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1500])
    problem = image_fault(record(tmp_path / name))
    assert problem == expected or problem.startswith(expected)
    assert [size for _, size in decoded if size == (WIDTH, HEIGHT)] == []


@pytest.mark.parametrize("decode", [False, True])
def test_only_so_many_pixels_are_decoded_at_once(tmp_path, monkeypatch, decode):
    """Of images of 2,400 pixels, two fit into a budget of 5,000."""
    budget = image_check._Budget(5000)
    monkeypatch.setattr(image_check, "_PIXELS", budget)
    noise().save(tmp_path / "a.bmp")
    running, most, lock, load = 0, [], threading.Lock(), ImageFile.ImageFile.load

    def slow(image):
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", slow)
    records = [record(tmp_path / "a.bmp")] * 20
    assert find_broken_images(records, lambda one: image_fault(one, decode)) == []
    assert max(most) == 2
    assert budget.free == 5000
    # a request above the total waits until all is free
    budget.total = budget.free = 1000
    most.clear()
    assert find_broken_images(records[:5], lambda one: image_fault(one, decode)) == []
    assert max(most) == 1


_CHECK = """
import re, sys
from pathlib import Path
from dynpose.data.image_check import find_image_faults
memory = lambda name: 1024 * int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
files = [line.split() for line in sys.stdin]
for error in (1, 0):
    records = [{"file_name": name, "width": int(side) + error, "height": int(side)} for name, side in files]
    # the peak until now is forgotten
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    print(len(find_image_faults(records)), memory("VmHWM") - before)
"""


@pytest.fixture
def hostile(tmp_path_factory):
    """50 files of less than a megabyte that take up to 700 MB when they are decoded: (path, side in pixels) of each."""
    folder, side = tmp_path_factory.mktemp("hostile"), 9000
    grey = Image.new("L", (side, side))
    Image.new("P", (side, side)).save(folder / "a.gif")
    grey.save(folder / "a.tiff", compression="tiff_adobe_deflate")
    grey.save(folder / "a.png")
    grey.save(folder / "a.jpg", progressive=True)
    grey.save(folder / "b.jpg")
    for size, name in ((6000, "a.webp"), (3500, "b.webp")):
        Image.new("RGB", (size, size)).save(folder / name, method=0)
    sides = {"a.webp": 6000, "b.webp": 3500}
    for name in ("a.png", "a.jpg", "b.jpg"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-100])
    names = sorted(os.listdir(folder))
    files = []
    for index in range(50):
        name = names[index % len(names)]
        os.link(folder / name, folder / f"{index}_{name}")
        files.append((str(folder / f"{index}_{name}"), sides.get(name, side)))
    return files


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_checking_hostile_images(hostile):
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHECK],
        input="\n".join(f"{path} {side}" for path, side in hostile),
        capture_output=True,
        text=True,
        check=True,
    )
    (of_wrong_sizes, memory_of_wrong_sizes), (of_right_sizes, memory) = (
        map(int, line.split()) for line in found.stdout.splitlines()
    )
    assert of_wrong_sizes == 50
    assert memory_of_wrong_sizes < 50e6
    # the other kinds are sound but for their size
    assert of_right_sizes == sum(path.endswith(("png", "jpg")) for path, _ in hostile)
    assert memory < 300e6


# --- kinds ---


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_more_than_8_bits_are_refused(tmp_path, name, channels):
    """Pillow reads 16 bits of three channels as 8, without a word."""
    path = str(tmp_path / name)
    assert cv2.imwrite(path, np.full((HEIGHT, WIDTH, channels), 40_000, np.uint16))
    assert "more than 8 bits per channel" in image_fault(record(path))
    with pytest.raises(DatasetError, match="more than 8 bits per channel"):
        read_image(record(path), "RGB")


def test_sixteen_bits_of_all_channels_together_are_read(tmp_path):
    """A BMP file of 5, 6 and 5 bits, which Pillow's name for the way it is stored says too."""
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack(
        "<III", 0xF800, 0x07E0, 0x001F
    )
    start = 14 + len(header)
    content = struct.pack("<2sIHHI", b"BM", start + 8, 0, 0, start) + header + struct.pack("<4H", 0xFFFF, 0, 0, 0xF800)
    (tmp_path / "a.bmp").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        assert image.tile[0][3][0] == "BGR;16"
    assert image_fault(record(tmp_path / "a.bmp", 2, 2)) is None
    assert read_image(record(tmp_path / "a.bmp", 2, 2), "RGB")[0].tolist() == [[0, 0, 0], [255, 0, 0]]


def test_text_of_a_png_does_not_matter(tmp_path, decoded):
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "no hexadecimal numbers\n\n\nzz")
    noise().save(tmp_path / "a.png", pnginfo=text)
    assert image_fault(record(tmp_path / "a.png")) is None
    assert decoded == []


# --- remembering ---


@pytest.fixture
def many(tmp_path):
    """120 images of 16 x 12, the fewest that are cached being 100."""
    noise(16, 12).save(tmp_path / "0.jpg")
    content = (tmp_path / "0.jpg").read_bytes()
    for index in range(120):
        (tmp_path / f"{index}.jpg").write_bytes(content)
    return [record(tmp_path / f"{index}.jpg", 16, 12) for index in range(120)]


@pytest.fixture
def opened(monkeypatch):
    names, real = [], Image.open

    def watched(file, *args):
        names.append(os.path.basename(getattr(file, "name", "")))
        return real(file, *args)

    monkeypatch.setattr(image_check.Image, "open", watched)
    return names


def test_a_second_start_opens_nothing(many, opened, cache, caplog):
    with caplog.at_level(logging.INFO, logger="dynpose"):
        check_images(many)
    assert "Checked the files of 120 images in " in caplog.text
    assert sorted(opened) == sorted(f"{index}.jpg" for index in range(120))
    opened.clear()
    check_images(many)
    assert opened == []
    assert len(list(cache.iterdir())) == 1


def test_a_few_images_are_not_cached(many, opened, cache):
    for _ in range(2):
        check_images(many[:99])
    assert len(opened) == 2 * 99
    assert not list(cache.iterdir())


def test_without_a_cache_all_are_read_again(many, opened, monkeypatch):
    monkeypatch.setenv("DYNPOSE_CACHE", "")
    for _ in range(2):
        check_images(many)
    assert len(opened) == 2 * 120


def test_changed_images_are_read_again(many, opened, tmp_path):
    check_images(many)
    opened.clear()
    # of the same length, at another time
    content = (tmp_path / "5.jpg").read_bytes()
    (tmp_path / "5.jpg").write_bytes(b"\0" * len(content))
    os.utime(tmp_path / "5.jpg", ns=(1, 1))
    # of another length at the same time
    status = os.stat(tmp_path / "6.jpg")
    noise(12, 16).save(tmp_path / "6.jpg")
    os.utime(tmp_path / "6.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "7.jpg").unlink()
    for _ in range(2):
        faults = find_image_faults(many)
        assert [os.path.basename(fault.record["file_name"]) for fault in faults] == ["5.jpg", "6.jpg", "7.jpg"]
        assert [fault.size for fault in faults] == [None, (12, 16), None]
        assert faults[2].problem == "no such file"
        # faulty images are checked again, in case they have been repaired
        assert sorted(opened) == ["5.jpg", "6.jpg"]
        opened.clear()
    for name in ("5.jpg", "6.jpg", "7.jpg"):
        (tmp_path / name).write_bytes(content)
    check_images(many)
    assert sorted(opened) == ["5.jpg", "6.jpg", "7.jpg"]
    opened.clear()
    check_images(many)
    assert opened == []


def test_another_annotation_is_compared_with_the_cached_sizes(many, opened, tmp_path):
    noise(16, 12).save(tmp_path / "3.jpg", exif=exif_bytes(6))
    many[3] = record(tmp_path / "3.jpg", 12, 16)
    check_images(many)
    opened.clear()
    changed = [{**one, "width": 17} if index == 4 else one for index, one in enumerate(many)]
    changed[3] = {**many[3], "width": 16, "height": 12}
    faults = find_image_faults(changed)
    assert [(fault.record, fault.size, fault.is_turned) for fault in faults] == [
        (changed[3], (12, 16), True),
        (changed[4], (16, 12), False),
    ]
    assert opened == []
    assert find_broken_images(changed) == [(fault.record["file_name"], fault.problem) for fault in faults]


def test_a_cache_of_another_shape_is_passed_over(many, opened, monkeypatch):
    check_images(many)
    for arrays in ({"files": np.zeros((3, 5), np.int64)}, {"files": np.zeros((120, 5))}, {}, None):
        monkeypatch.setattr(image_check, "load_arrays", lambda kind, key, arrays=arrays: arrays)
        opened.clear()
        check_images(many)
        assert len(opened) == 120


# --- messages ---


def message_of(records):
    with pytest.raises(DatasetError) as caught:
        check_images(records)
    return str(caught.value)


@pytest.fixture
def sizes(tmp_path):
    """Records of images of given sizes, annotated as such."""

    def save(*sizes, **keywords):
        for index, (width, height) in enumerate(sizes):
            noise(width, height).save(tmp_path / f"{index}.jpg", **keywords)
        return [record(tmp_path / f"{index}.jpg", *size) for index, size in enumerate(sizes)]

    return save


def test_one_size_for_all(sizes):
    records = [{**one, "width": 60, "height": 40} for one in sizes((60, 40), (50, 30), (40, 60), (20, 20), (10, 90))]
    found = message_of(records)
    assert found.startswith("4 of 5 images are not of the annotated size: ")
    listed = "1.jpg (50 x 30 pixels, annotated as 60 x 40); ", "2.jpg (40 x 60 pixels, annotated as 60 x 40); "
    assert all(part in found for part in (*listed, "3.jpg (20 x 20 pixels, annotated as 60 x 40); ...: "))
    assert found.endswith(
        "all images are annotated as 60 x 40, the size of the first: the annotation tool wrote one size for all; write "
        "each image's own size into the annotation"
    )
    # that of no image that is first
    assert ": all images are annotated as 60 x 40: the annotation tool" in message_of(records[1:])


def test_sizes_swapped(sizes):
    records = [{**one, "width": one["height"], "height": one["width"]} for one in sizes((60, 40), (50, 30))]
    assert message_of(records).endswith("width and height are swapped: exchange them in the annotation")


def test_orientation_not_applied(sizes):
    records = sizes((60, 40), (50, 30), exif=exif_bytes(8))
    found = message_of(records)
    assert "0.jpg (40 x 60 pixels, annotated as 60 x 40); " in found
    assert "since the images' EXIF orientation was not applied in annotating: annotate the images as" in found


def test_no_cause_is_made_up(sizes):
    records = sizes((60, 40), (50, 30), (20, 20))
    records[0]["width"] = 61
    records[2]["height"] = 10
    assert message_of(records).endswith(": correct the annotation, or provide the matching images")


def test_one_image_of_another_size(sizes):
    records = sizes((60, 40), (60, 40))
    records[1]["width"] = 61
    assert message_of(records) == (
        f"{records[1]['file_name']}: the image is 60 x 40 pixels, its annotation says 61 x 40; correct the annotation "
        "(if the two are swapped: the image's EXIF orientation was not applied there)"
    )


def test_broken_images_beside_those_of_another_size(sizes, tmp_path):
    records = [*sizes((60, 40), (50, 30)), record(tmp_path / "gone.jpg")]
    for one in records:
        one["width"] += 1
    found = message_of(records)
    assert found.startswith("1 of 3 images can't be read: ")
    assert ". 2 of 3 images are not of the annotated size: " in found


def test_an_error_of_reading_has_its_parts(tmp_path):
    with pytest.raises(DatasetError) as caught:
        read_image({"file_name": str(tmp_path / "a.jpg")}, "RGB")
    fault = caught.value.fault
    assert (fault.source, fault.problem) == (str(tmp_path / "a.jpg"), "the image does not exist")
    assert str(caught.value) == f"{fault.source}: {fault.reason}"


def test_sizes_need_not_be_annotated(images):
    check_images([{"file_name": one["file_name"]} for one in images])
