"""Make demo.jpg: the eight pictures of predictions that ``make demo`` draws, in two rows.

python docs/images/make_demo.py output/demo/predictions
"""

import sys
from pathlib import Path

from PIL import Image

COLUMNS, ROWS = 4, 2
# of each picture, pixels
SIDE = 360

paths = sorted(Path(sys.argv[1]).glob("*.jpg"))
assert len(paths) == COLUMNS * ROWS, f"{sys.argv[1]}: {len(paths)} pictures instead of {COLUMNS * ROWS}"
page = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
for index, path in enumerate(paths):
    row, column = divmod(index, COLUMNS)
    page.paste(Image.open(path).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * SIDE, row * SIDE))
page.save(Path(__file__).with_name("demo.jpg"), quality=85)
