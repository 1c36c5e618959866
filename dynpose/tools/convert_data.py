"""Convert annotation projects of other tools to COCO keypoints, or to YOLO-pose.

    dynpose convert-data hands/data.yaml --output hands.json
    dynpose convert-data annotations.xml --image-dir images --output dogs.json
    dynpose convert-data dogs_train.json dogs_val.json --splits train val --image-dir images \\
        --to yolo-pose --output dogs_yolo

The format is detected: YOLO-pose (data.yaml), CVAT for images 1.1 (XML), Label Studio (JSON), labelme and X-AnyLabeling
(folders of JSON), SLEAP (.slp), DeepLabCut (config.yaml, CollectedData); COCO keypoints, to write YOLO-pose. A folder
stands for the project in it. Images are referenced where they are; those inside videos and annotation files are
extracted to <output>_images.

The output says what was taken for what: keypoints, flip pairs, limbs, the origin of the coordinates, and everything
that was lost or changed. Items without a unique meaning end the conversion with one error; nothing is written then.
docs/converting_data.md has the rules.
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynpose.data.formats import Conversion, PoseCategory

NAME = "convert-data"
HELP = "convert a project of an annotation tool to COCO keypoints or YOLO-pose"

_FORMATS = "yolo-pose, cvat, label-studio, labelme, x-anylabeling, sleap, deeplabcut, coco"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files or folders of one format")
    parser.add_argument("--output", required=True, help="the .json file or, with --to yolo-pose, the folder to write")
    parser.add_argument("--from", dest="source", metavar="FORMAT", help=f"the format: {_FORMATS}; default: detected")
    parser.add_argument(
        "--to", choices=("coco", "yolo-pose"), default="coco", help="the format to write, default %(default)s"
    )
    parser.add_argument("--image-dir", nargs="+", default=[], help="folders to search for images first")
    parser.add_argument("--copy-images", action="store_true", help="copy images instead of referring to them")
    parser.add_argument("--splits", nargs="+", help="the split of each INPUT: train, val, ...")
    parser.add_argument("--category", nargs="+", help="convert these categories only")
    parser.add_argument("--keypoints", nargs="+", help="names, or their order, for a format that has none")
    parser.add_argument(
        "--pairs", nargs="*", metavar="LEFT:RIGHT", help="keypoints that change places in a mirrored image"
    )
    parser.add_argument("--skeleton", nargs="*", metavar="A:B", help="limbs, as pairs of keypoints")
    parser.add_argument(
        "--visibility-of-0-0",
        choices=("missing", "visible"),
        help="YOLO-pose without visibilities: what a point at (0, 0) is",
    )
    parser.add_argument(
        "--origin",
        choices=("corner", "index"),
        help="where (0, 0) of the project's keypoints is: the image's corner, or the centre of the first pixel; "
        "default: the format's",
    )
    parser.add_argument("--no-visibility", action="store_true", help="write YOLO-pose with x and y alone")


def run(args: argparse.Namespace) -> None:
    """Convert and report."""
    from dynpose.config import ConfigError
    from dynpose.data.formats import ReadOptions, Request, convert
    from dynpose.utils.printing import printable

    if args.to == "coco" and args.no_visibility:
        raise ConfigError("--no-visibility goes with --to yolo-pose: COCO keypoints have a visibility")
    request = Request(
        inputs=tuple(map(Path, args.input)),
        output=Path(args.output),
        source_format=args.source,
        target_format=args.to,
        splits=_tuple(args.splits),
        options=ReadOptions(
            image_dirs=tuple(map(Path, args.image_dir)),
            keypoints=_tuple(args.keypoints),
            categories=_tuple(args.category),
            zero_points=args.visibility_of_0_0,
        ),
        origin=args.origin,
        pairs=_tuple(args.pairs),
        limbs=_tuple(args.skeleton),
        copy_images=args.copy_images,
        visibility=not args.no_visibility,
    )
    for line in _report(convert(request), request.inputs):
        print(printable(line))


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _report(result: "Conversion", inputs: tuple[Path, ...]) -> list[str]:
    """Lines for people: what was read, what was taken for what, and what was written."""
    project = result.project
    lines = [f"{', '.join(map(str, inputs))}: {result.source_format.title} ({result.source_format.name})"]
    alike: dict[tuple, list[PoseCategory]] = {}
    for category in project.categories:
        alike.setdefault((category.keypoints, category.flip_pairs, category.skeleton), []).append(category)
    for categories in alike.values():
        lines += _keypoints(categories)
    lines.append(f"  origin: {_origin(result)}")
    lines += _counts(result)
    for title, counts in (
        ("lost", project.notes.lost),
        ("changed", project.notes.changed),
        ("remarks", project.notes.remarks),
    ):
        lines.append(f"  {title}:" if counts else f"  {title}: none")
        lines += [f"    {kind}: {count} (first: {item})" for kind, (count, item) in counts.items()]
    lines += [f"{file}: written" for file in result.files]
    if result.num_images_written:
        lines.append(f"{result.image_root}: {result.num_images_written} images written")
    if result.files[0].suffix == ".json":
        paths = (shlex.quote(str(path)) for path in (result.files[0], result.image_root))
        lines.append("next: dynpose check-data --json {} --images {}".format(*paths))
    return lines


def _keypoints(categories: "list[PoseCategory]") -> list[str]:
    """Lines about categories with the same keypoints, pairs and limbs."""
    from dynpose.data.flip_names import flip_pairs_concern

    first = categories[0]
    names = first.keypoints
    pairs = ", ".join(f"{left} / {right}" for left, right in first.flip_pairs or ()) or "none"
    limbs = ", ".join(f"{names[a]} - {names[b]}" for a, b in first.skeleton) or "none"
    concern = flip_pairs_concern(first.schema())
    return [
        f"  {', '.join(category.name for category in categories)}: {len(names)} keypoints: {', '.join(names)}",
        f"    pairs ({first.pairs_from}): {pairs}",
        f"    limbs{f' ({first.limbs_from})' if first.skeleton else ''}: {limbs}",
        *([f"    {concern}"] if concern else []),
    ]


def _origin(result: "Conversion") -> str:
    given = "" if result.origin == result.source_format.origin else " (as given)"
    if result.origin == "corner":
        return (
            f"the image's corner{given}: 0.5 is subtracted from x and y, since COCO's is the centre of the first pixel"
        )
    return f"the centre of the first pixel{given}, as COCO's: x and y are unchanged"


def _counts(result: "Conversion") -> list[str]:
    import numpy as np

    images, people = result.project.images, [person for _, person in result.project.people()]
    seen = np.concatenate([person.keypoints[:, 2] for person in people]) if people else np.zeros(0)
    splits = list(dict.fromkeys(image.split for image in images if image.split is not None))
    shares = ", ".join(f"{split} {sum(image.split == split for image in images)}" for split in splits)
    tracks = {(person.category, person.track) for person in people if person.track is not None}
    return [
        f"  {len(images)} images{f' ({shares})' if shares else ''}, {len(people)} people"
        + (f" of {len(tracks)} tracks" if tracks else ""),
        f"  {int((seen > 0).sum())} labelled points: {int((seen == 2).sum())} visible, {int((seen == 1).sum())} "
        f"occluded; {int((seen == 0).sum())} not labelled",
    ]
