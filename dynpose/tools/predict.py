"""Find the people in images: pictures with their poses, and one file with all numbers.

    dynpose predict --config-file output/run/config.yaml --weights output/run/model_final.pth \\
        --input street.jpg holiday/ 'frames/*.png' --output predictions

The output folder gets a picture for every image, under the image's path below the folder that all inputs share, and
predictions.json. That file holds everybody the model finds, whatever the score; the pictures show those above
--score-threshold. An image that can't be read is reported and left out, and so is a prediction with a NaN or infinite
number, which a diverged model makes; the exit code is then 1. When the run is interrupted, the file holds what was done
until then.
"""

import glob
import itertools
import json
import os
import sys
from pathlib import Path

from .cli import positive_int

NAME = "predict"
HELP = "find the people in images: pictures and one JSON file"

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_COORDINATES = (
    "keypoints: [x, y, confidence in 0..1] in COCO's pixel convention, where (0, 0) is the centre of the upper left "
    "pixel. bbox: [x, y, width, height] of the box's edges, where (0, 0) is the upper left corner of the image. Pixels "
    "of the image after its EXIF orientation is applied."
)


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", required=True, help="config.yaml of a run, or a file of configs/")
    parser.add_argument("--weights", required=True, help="dynpose's or released weights")
    parser.add_argument("--input", required=True, nargs="+", help="images, folders (with those inside) or quoted globs")
    parser.add_argument("--output", required=True, help="folder for the pictures and predictions.json")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="of the pictures, default %(default)s")
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images in a forward pass, default %(default)s"
    )
    parser.add_argument("--device", help="cpu or cuda; default: MODEL.DEVICE, or cpu where there is no GPU")
    parser.add_argument("--limit", type=positive_int, help="stop after so many images")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def run(args):
    """Predict; 1 if an image or a prediction had to be left out."""
    from dynpose.engine.predictor import PosePredictor

    output = Path(os.path.abspath(args.output))
    # a second run must not take the first one's pictures for its images
    images = find_images(args.input, skip=output)[: args.limit]
    if not args.no_pictures:
        _refuse_to_overwrite(images, output)
    predictor = PosePredictor.from_files(args.config_file, args.weights, args.opts, device=args.device)

    output.mkdir(parents=True, exist_ok=True)
    record = {"info": _info(args, predictor), "images": [], "skipped": []}
    try:
        _predict_all(predictor, images, args, record)
        record["info"]["complete"] = True
    finally:
        _write_atomically(output / "predictions.json", record)
        if not record["info"]["complete"]:
            print(f"stopped: {args.output} holds {len(record['images'])} of {len(images)} images", file=sys.stderr)
    return _summarise(record, args)


def find_images(inputs, skip=None):
    """List the images of files, folders and globs.

    Args:
        inputs (Sequence[str]): image files, folders (searched with all folders inside), or globs (``**`` too).
        skip (Path | None): a folder, absolute, that is left out where it lies inside of a folder or glob.

    Returns:
        list[tuple[str, Path]]: for each image its name, which is its path below the deepest folder that holds all
        inputs and so is not shared by two images, and its absolute path. Every image once, in the order of the inputs.

    Raises:
        FileNotFoundError: an input does not exist, is not an image by its ending, or has none in it.
    """
    paths, roots = {}, []
    for item in inputs:
        here, root = _expand(item)
        if skip is not None and root in skip.parents and not os.path.isfile(item):
            here = [path for path in here if skip not in path.parents]
        if not here:
            raise FileNotFoundError(f"{item}: no images there; images end in {' '.join(IMAGE_ENDINGS)}")
        paths.update(dict.fromkeys(here))
        roots.append(root)
    base = os.path.commonpath(roots)
    return [(path.relative_to(base).as_posix(), path) for path in paths]


def _expand(item):
    """The images of one input as absolute paths, sorted, and the folder that their names start from."""
    path = Path(os.path.abspath(item))
    if path.is_dir():
        return sorted(inside for inside in path.rglob("*") if _is_image(inside)), path
    if path.is_file():
        return [path] if _is_image(path) else [], path.parent
    if not glob.has_magic(item):
        raise FileNotFoundError(f"{item}: no such image or folder (KEY VALUE overrides go after another option)")
    matches = (Path(os.path.abspath(match)) for match in glob.glob(item, recursive=True))
    found = sorted(match for match in matches if _is_image(match))
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    return found, Path(*fixed)


def _is_image(path):
    return path.suffix.lower() in IMAGE_ENDINGS and path.is_file()


def _refuse_to_overwrite(images, output):
    from dynpose.config import ConfigError

    sources = {path.resolve() for _, path in images}
    for name, _ in images:
        if (output / name).resolve() in sources:
            raise ConfigError(f"--output {output}: the picture {name} would overwrite an image; give another folder")


def _info(args, predictor):
    import dynpose

    return {
        "description": f"dynpose {dynpose.__version__}: {args.weights} with {args.config_file}",
        "coordinates": _COORDINATES,
        "keypoint_names": list(predictor.schema.names),
        "skeleton": [list(edge) for edge in predictor.schema.skeleton],
        "skeleton_indices": "start at 0",
        "category_names": list(predictor.metadata.get("thing_classes") or []),
        "complete": False,
    }


def _predict_all(predictor, images, args, record):
    """Predict batch by batch, and note the results in ``record`` as they come."""
    from tqdm import tqdm

    batch = []
    with tqdm(total=len(images), unit="image", desc="predict", disable=None) as progress:
        for index, (name, path) in enumerate(images):
            try:
                pixels = _read(path)
                batch.append((name, pixels, predictor.prepare(pixels)))
            except Exception as error:
                # Pillow raises OSError, SyntaxError, ValueError and more for files that are not quite images
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                record["skipped"].append({"file_name": name, "reason": reason})
                progress.write(f"skipped {path}: {reason}", file=sys.stderr)
                progress.update()
            if len(batch) == args.batch_size or (batch and index + 1 == len(images)):
                _predict_batch(predictor, batch, args, record)
                progress.update(len(batch))
                batch = []


def _read(path):
    from dynpose.data.image_check import read_image

    return read_image({"file_name": str(path)}, "BGR")


def _predict_batch(predictor, batch, args, record):
    from dynpose.utils.finite import finite_instances

    for (name, pixels, _), instances in zip(batch, predictor.infer([inputs for *_, inputs in batch])):
        instances = instances.to("cpu")
        finite = finite_instances(instances)
        instances = instances[finite]
        record["images"].append(
            {
                "file_name": name,
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "instances": to_records(instances, record["info"]["category_names"]),
                "not_finite": int((~finite).sum()),
            }
        )
        if not args.no_pictures:
            _draw(Path(args.output, name), pixels, instances, predictor.schema, args.score_threshold)


def to_records(instances, category_names=()):
    """Turn predictions into plain numbers for JSON.

    Args:
        instances (Instances): N people on the CPU, in continuous pixels.
        category_names (Sequence[str]): of the classes, in the order of their indices; empty = unknown.

    Returns:
        list[dict]: ``category`` (index of the class), ``category_name`` where it is known, ``bbox`` (XYWH), ``score``
        and ``keypoints``, K of [x, y, confidence] in COCO's pixel convention: half a pixel less.
    """
    boxes = instances.pred_boxes.tensor.clone()
    boxes[:, 2:] -= boxes[:, :2]
    keypoints = instances.pred_keypoints.clone()
    keypoints[:, :, :2] -= 0.5
    return [
        {
            "category": category,
            **({"category_name": category_names[category]} if category < len(category_names) else {}),
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
            "keypoints": [[round(x, 3), round(y, 3), round(confidence, 5)] for x, y, confidence in person],
        }
        for category, box, score, person in zip(
            instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), keypoints.tolist()
        )
    ]


def _draw(path, image_bgr, instances, schema, score_threshold):
    from PIL import Image

    from dynpose.utils import draw_poses

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_poses(image_bgr[:, :, ::-1], instances, schema, score_threshold=score_threshold)
    Image.fromarray(drawn).save(path, quality=92)


def _write_atomically(path, record):
    """Write JSON so that the file is there whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _summarise(record, args):
    people = [person for image in record["images"] for person in image["instances"]]
    shown = sum(person["score"] >= args.score_threshold for person in people)
    print(
        f"{len(record['images'])} images, {shown} people with a score of at least {args.score_threshold} "
        f"({len(people)} in all): {args.output}"
    )
    if record["skipped"]:
        print(f"{len(record['skipped'])} images skipped; predictions.json says which and why", file=sys.stderr)
    diverged = [image for image in record["images"] if image["not_finite"]]
    if diverged:
        print(
            f"{sum(image['not_finite'] for image in diverged)} predictions with a NaN or infinite number left out, in "
            f"{len(diverged)} images (not_finite in predictions.json): the training of {args.weights} may have "
            "diverged; give weights of an earlier iteration",
            file=sys.stderr,
        )
    return 1 if record["skipped"] or diverged else 0
