#!/usr/bin/env bash
# Guess: Image.getexif() reads a few bytes of metadata, whatever the format and the size of the image.
# Seen: of a PNG without an eXIf chunk before its pixels, Pillow decodes the whole image, since the chunk may follow the
# pixels: 6000 x 6000 pixels take over 100 MiB more. A JPEG of that size takes next to nothing, and so does the PNG once
# it has an eXIf chunk. A loader that asks every image of a data set for its orientation decodes all PNG files of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from PIL import Image

picture = Image.new("RGB", (6000, 6000), (90, 120, 30))
exif = Image.Exif()
exif[0x0112] = 1
picture.save("plain.png")
picture.save("tagged.png", exif=exif)
picture.save("plain.jpg")
PYTHON
"$work/venv/bin/python" - <<'PYTHON'
import subprocess
import sys

READ = """
import resource, sys
from PIL import Image
Image.open(sys.argv[1]).close()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Image.open(sys.argv[1]) as image:
    image.getexif()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
grown = {}
for name in ("plain.png", "tagged.png", "plain.jpg"):
    output = subprocess.run([sys.executable, "-c", READ, name], capture_output=True, text=True, check=True).stdout
    grown[name] = int(output)
    print(f"{name}: getexif() takes {grown[name]} MiB more")
assert grown["plain.png"] > 90, grown
assert max(grown["tagged.png"], grown["plain.jpg"]) < 10, grown
PYTHON
