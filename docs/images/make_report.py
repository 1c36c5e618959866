"""Make report.png and report_images.png: the report of predictions whose left and right are exchanged.

    python docs/images/make_report.py

The images are synthetic people; the predictions are their annotation with noise, left and right exchanged. The pictures
are taken by Chromium (``chromium`` must be on the PATH).
"""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dynpose.data import COCO_PERSON
from dynpose.data.synthetic import SyntheticPose, write_synthetic_pose
from dynpose.report import Annotation, read_predictions, write_report

HERE = Path(__file__).absolute().parent
WIDTH = 1000
# Name of each picture, a style that selects what it shows, and its height in pixels
PICTURES = (
    ("report.png", "", 1010),
    ("report_images.png", "<style>header, section:not(#images) { display: none }</style>", 700),
)


def predictions(json_file: str, seed: int = 0) -> list[dict]:
    """Predictions of 19 of 20 people with noise relative to the OKS sigmas, left and right exchanged."""
    random = np.random.default_rng(seed)
    results = []
    for person in json.loads(Path(json_file).read_text())["annotations"]:
        points = np.reshape(person["keypoints"], (-1, 3)).astype(float)
        quality = abs(random.normal(1, 0.5))
        if not person["num_keypoints"] or random.random() < 0.05:
            continue
        labelled = points[:, 2] > 0
        points[~labelled, :2] = points[labelled, :2].mean(axis=0)
        spread = np.array(COCO_PERSON.sigmas)[:, None] * np.sqrt(person["area"])
        points[:, :2] += random.normal(size=(len(points), 2)) * quality * spread
        points[:, 2] = 0.8
        results.append(
            {
                "image_id": person["image_id"],
                "category_id": person["category_id"],
                "keypoints": points[COCO_PERSON.flip_indices].ravel().tolist(),
                "score": float(np.clip(1 - 0.4 * quality + random.normal(0, 0.05), 0.01, 0.99)),
            }
        )
    return results


def take_picture(page: Path, style: str, height: int, path: Path) -> None:
    """Take a picture of a part of the page, in few colours so that it is small."""
    part = page.with_name("part.html")
    part.write_text(page.read_text().replace("</head>", f"{style}</head>"))
    subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--window-size={WIDTH},{height}", f"--screenshot={path}", part.absolute().as_uri()),
        ],
        check=True,
        capture_output=True,
    )
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Make data, report and pictures."""
    # the page shows the paths, which are short below the current folder
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        folder = Path("left_right_exchanged")
        json_file, image_root = write_synthetic_pose(str(folder), "val", 60, SyntheticPose(seed=1))
        results = folder / "predictions.json"
        results.write_text(json.dumps(predictions(json_file)))
        write_report(read_predictions(results, Annotation(json_file=json_file, image_root=image_root)), folder)
        for name, style, height in PICTURES:
            take_picture(folder / "report.html", style, height, HERE / name)


if __name__ == "__main__":
    main()
