"""Images in any form, against OpenCV and Pillow."""

import io
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from dynpose.data import DatasetError
from dynpose.data.any_image import EncodedImage, to_bgr

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
BGR = RGB[:, :, ::-1]
GREY = RGB[:, :, 0]


def png(pixels=RGB, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def server():
    """A web server with an image that depends on the query, one that changes, a text and nothing else."""
    numbers = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = self.path.partition("?")
            content = {
                "/image": png(np.roll(RGB, int(query or 0), axis=0)),
                "/next": png(np.full_like(RGB, next(numbers))),
                "/text": b"<html>Log in",
            }.get(path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (BGR, BGR),
        (GREY, np.stack([GREY] * 3, axis=2)),
        (GREY[:, :, None], np.stack([GREY] * 3, axis=2)),
        (np.dstack([BGR, GREY]), BGR),
        (np.asfortranarray(BGR), BGR),
    ],
    ids=["BGR", "grey", "grey with an axis", "BGRA", "order of memory"],
)
def test_arrays(array, expected):
    image = to_bgr(array)
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RGB.astype(np.float32) / 255, r"\(6, 8, 3\) float32; for values from 0 to 1, .*\(image \* 255\)"),
        (RGB.astype(np.uint16) * 257, r"uint16; .*\(image // 257\)\.astype\(numpy\.uint8\)"),
        (GREY > 9, r"bool; .*\* 255"),
        (RGB.astype(np.int64), r"int64; .*image\.astype\(numpy\.uint8\)"),
        (RGB.transpose(2, 0, 1), r"\(3, 6, 8\) uint8; transpose"),
        (RGB[None], r"\(1, 6, 8, 3\) uint8; .* several images as a list"),
        (RGB[:0], r"\(0, 8, 3\)"),
    ],
)
def test_other_arrays_are_refused_with_the_remedy(array, message):
    with pytest.raises(ValueError, match=message):
        to_bgr(array)


def test_the_remedies_work():
    assert np.array_equal(to_bgr(((RGB / 255).astype(np.float32) * 255).round().astype(np.uint8)), RGB)
    assert np.array_equal(to_bgr((RGB.astype(np.uint16) * 257 // 257).astype(np.uint8)), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_any_mode(mode):
    image = Image.fromarray(RGB)
    # Pillow converts to some modes only by way of another one
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert np.array_equal(to_bgr(image)[:, :, ::-1], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_pil_images_are_refused(mode):
    with pytest.raises(DatasetError, match="more than 8 bits per channel"):
        to_bgr(Image.new(mode, (8, 6)))


def test_a_pil_image_that_can_not_be_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "half.png").write_bytes(png(noise)[:2000])
    with (
        Image.open(tmp_path / "half.png") as image,
        pytest.raises(DatasetError, match=r"half\.png: the image, of .*RGB"),
    ):
        to_bgr(image)


def test_an_opened_pil_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(png(exif=exif))
    with Image.open(tmp_path / "turned.png") as image:
        turned = to_bgr(image)
    assert np.array_equal(turned, np.rot90(BGR, -1))
    assert np.array_equal(turned, to_bgr(str(tmp_path / "turned.png")))
    assert np.array_equal(turned, cv2.imread(str(tmp_path / "turned.png")))


def test_urls(server):
    assert np.array_equal(to_bgr(f"{server}/image"), BGR)
    assert np.array_equal(to_bgr(f"{server}/image?2"), np.roll(BGR, 2, axis=0))


def test_nothing_is_cached(server):
    """As from a network camera, whose image changes."""
    first, second = (to_bgr(f"{server}/next") for _ in range(2))
    assert not np.array_equal(first, second)


def test_urls_that_give_no_image(server):
    with pytest.raises(DatasetError, match=r"http://127\.0\.0\.1:\d+/gone: the server answers 404 Not Found; check"):
        to_bgr(f"{server}/gone")
    with pytest.raises(DatasetError, match=r"/text: it is not an image that can be read .* starts with '<html>Log in'"):
        to_bgr(f"{server}/text")
    with pytest.raises(DatasetError, match=r"http://127\.0\.0\.1:1/a\.jpg: it can't be downloaded \(.*refused"):
        to_bgr("http://127.0.0.1:1/a.jpg")


def test_contents_of_files():
    assert np.array_equal(to_bgr(EncodedImage("a.png", png())), BGR)
    deep = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16)).save(deep, "PNG")
    with pytest.raises(DatasetError, match=r"^deep\.png: the image has more than 8 bits"):
        to_bgr(EncodedImage("deep.png", deep.getvalue()))


@pytest.mark.parametrize("image", [None, 7, [RGB]])
def test_other_types_are_refused(image):
    with pytest.raises(TypeError, match="a numpy array, a PIL image, a file name or a URL, got"):
        to_bgr(image)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
def test_contents_have_the_pixels_of_the_file(tmp_path, ending):
    """Also where Pillow applies the orientation itself and leaves it in the file, as for TIFF."""
    path = tmp_path / f"turned{ending}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(path, exif=exif)
    of_file = to_bgr(path)
    assert of_file.shape == (6, 4, 3)
    assert np.array_equal(to_bgr(EncodedImage("turned", path.read_bytes())), of_file)
