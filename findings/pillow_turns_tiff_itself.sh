#!/usr/bin/env bash
# Guess: Pillow gives pixels as they are stored, for every format, and whoever wants the picture upright reads the orientation
# tag and turns it, as detection code does (exif = image.getexif(); image.transpose(...)).
# Seen: that is so for JPEG, PNG and WebP. A TIFF file is turned by Pillow on loading: its size is that of the upright picture
# before a pixel is read, while getexif() still says "turn me". Code that obeys turns it twice. ImageOps.exif_transpose is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet Pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import PIL
from PIL import Image, ImageOps

ORIENTATION, TURN_CLOCKWISE = 0x0112, 6
stored = Image.new("RGB", (40, 20), "black")
stored.paste("white", (0, 0, 20, 20))  # the left half, which is the upper one of the upright 20 x 40 picture
exif = Image.Exif()
exif[ORIENTATION] = TURN_CLOCKWISE
seen = {}
for extension in ("jpg", "png", "webp", "tiff"):
    name = f"turned.{extension}"
    stored.save(name, exif=exif.tobytes(), **({"lossless": True} if extension == "webp" else {}))
    with Image.open(name) as image:
        size, tag = image.size, image.getexif().get(ORIENTATION)
        by_tag = image.transpose(Image.Transpose.ROTATE_270) if tag == TURN_CLOCKWISE else image.copy()
    with Image.open(name) as image:
        by_pillow = ImageOps.exif_transpose(image)
    is_upright = by_pillow.size == (20, 40) and by_pillow.getpixel((10, 5))[0] > 200 > 50 > by_pillow.getpixel((10, 35))[0]
    seen[extension] = (size, tag, by_tag.size, is_upright)
    print(f"Pillow {PIL.__version__} {extension}: size {size}, tag {tag}; turned by the tag {by_tag.size}; "
          f"exif_transpose gives the upright picture: {is_upright}")
for extension in ("jpg", "png", "webp"):
    assert seen[extension] == ((40, 20), 6, (20, 40), True)
assert seen["tiff"] == ((20, 40), 6, (40, 20), True)
PYTHON
