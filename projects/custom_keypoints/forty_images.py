#!/usr/bin/env python
"""A new user's path, from forty images to a report, checked: takes minutes, needs no GPU and no downloads.

    python projects/custom_keypoints/forty_images.py output/demo/model_final.pth output/forty

Forty images of synthetic people with six labelled keypoints, which the weights have not seen, and one data file with a
planted fault (flip pairs that mix elbows and wrists). One command trains, keeps the best weights and writes the report.
Then the AP on sixty further images must be 50 or more, and the report must name the fault first.
"""

import argparse
import json
from pathlib import Path

from dynpose.data.synthetic import SyntheticPose, write_synthetic_pose
from dynpose.tools import cli

NAMES = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist") for side in ("left", "right")]
LIMBS = [[1, 2], [1, 3], [3, 5], [2, 4], [4, 6]]
DATA = """\
train: {annotations: forty.json, images: val}
pairs: [[left_shoulder, right_shoulder], [left_elbow, right_wrist], [left_wrist, right_elbow]]
"""
NEEDED_AP = 50


def main() -> None:
    """Draw, train, evaluate and check; exits with an error if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="of make demo")
    parser.add_argument("output", type=Path, help="folder for images, run and report")
    args = parser.parse_args()
    draw(args.output)
    run = args.output / "run"
    call("train", "--data", args.output / "forty.yaml", "--weights", args.weights, "--output", run)
    test = ["--annotations", args.output / "sixty.json", "--image-root", args.output / "val"]
    call("evaluate", "--weights", run / "model_best.pth", *test, "--output", args.output / "test")
    ap = json.loads((args.output / "test" / "results.json").read_text())["keypoints/AP"]
    headline = json.loads((run / "report.json").read_text())["verdict"]["headline"]
    print(f"AP on 60 further images: {ap:.1f}\nReport: {headline}")
    if ap < NEEDED_AP or "pair" not in headline:
        raise SystemExit(f"expected an AP of at least {NEEDED_AP}, and the flip pair in the report's first line")


def draw(output: Path) -> None:
    """Write 100 images and two annotation files with six keypoints, and the data file."""
    # as in make demo, with other random numbers
    look = {"image_size": (160, 160), "people": (1, 2), "scale": (0.7, 0.95), "crowding": 0.0, "truncation": 0.0}
    annotations, _ = write_synthetic_pose(output, "val", 100, SyntheticPose(seed=1, **look))
    data = json.loads(Path(annotations).read_text())
    places = [data["categories"][0]["keypoints"].index(name) for name in NAMES]
    category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": LIMBS}
    for name, images in (("forty", data["images"][:40]), ("sixty", data["images"][40:])):
        ids = {image["id"] for image in images}
        people = [six_keypoints(person, places) for person in data["annotations"] if person["image_id"] in ids]
        part = {"images": images, "annotations": people, "categories": [category]}
        (output / f"{name}.json").write_text(json.dumps(part))
    (output / "forty.yaml").write_text(DATA)


def six_keypoints(person: dict, places: list[int]) -> dict:
    """An annotation with the keypoints at these places only."""
    keypoints = [number for place in places for number in person["keypoints"][3 * place : 3 * place + 3]]
    return {**person, "keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3]), "category_id": 1}


def call(*words: object) -> None:
    """Run a command of dynpose, which must succeed."""
    if cli.main(list(map(str, words))):
        raise SystemExit(f"dynpose {words[0]} failed")


if __name__ == "__main__":
    main()
