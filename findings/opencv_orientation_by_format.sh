#!/usr/bin/env bash
# Guess: cv2.imread turns a picture by its EXIF orientation, in every format that can hold one, as its documentation of
# IMREAD_IGNORE_ORIENTATION suggests.
# Seen: it does for JPEG and PNG, and in version 5.0 for WebP; version 4.11 shows WebP lying, and AVIF lies in 5.0. An
# annotation tool built on one of them and a trainer on another see different widths and heights for one file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/old"
python3 -m venv "$work/new"
"$work/old/bin/pip" install --quiet opencv-python-headless==4.11.0.86 Pillow==12.0.0
"$work/new/bin/pip" install --quiet opencv-python-headless==5.0.0.93 Pillow==12.0.0
cd "$work"
cat > show.py <<'PYTHON'
import sys

import cv2
from PIL import Image

ORIENTATION, TURN_CLOCKWISE = 0x0112, 6
exif = Image.Exif()
exif[ORIENTATION] = TURN_CLOCKWISE
seen = {}
for extension in sys.argv[1:]:
    name = f"turned.{extension}"
    Image.new("RGB", (40, 20)).save(name, exif=exif.tobytes())
    height, width = cv2.imread(name).shape[:2]
    seen[extension] = "upright" if (width, height) == (20, 40) else "lying"
print(cv2.__version__, *(f"{extension}={way}" for extension, way in seen.items()))
PYTHON
old=$("$work/old/bin/python" show.py jpg png webp)
new=$("$work/new/bin/python" show.py jpg png webp avif)
echo "OpenCV $old"
echo "OpenCV $new"
[ "$old" = "4.11.0 jpg=upright png=upright webp=lying" ]
[ "$new" = "5.0.0 jpg=upright png=upright webp=upright avif=lying" ]
