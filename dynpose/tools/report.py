"""Say what is wrong with predictions: an HTML page, and its numbers as JSON.

    dynpose report output/run
    dynpose report poses --annotations val.json --image-root images
    dynpose report coco_instances_results.json --dataset keypoints_coco_2017_val

The source is the output folder of a run (its last evaluation and its training), the output folder of `dynpose predict`,
or a file of predictions in COCO's results format, as detectron2, mmpose and Ultralytics write it. The last two need the
annotation of the images. report.html needs no server and makes no request; docs/report.md explains what it says.

Exit codes: 0 = done, also if the report finds faults; 2 = invalid input.
"""

import argparse
from typing import Any

from .cli import finite_number, positive_int

NAME = "report"
HELP = "an HTML page that says what is wrong with predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument(
        "source", metavar="RUN_OR_PREDICTIONS", help="a folder of a run or of predict, or a results file"
    )
    parser.add_argument("--annotations", help="of the predicted images, in COCO's format; not for a run")
    parser.add_argument("--image-root", help="folder that its file names start from, default: that of the annotation")
    parser.add_argument(
        "--dataset", help="instead of --annotations: a registered data set; or one of a run's data sets"
    )
    parser.add_argument("--category", nargs="+", help="with --annotations: the category to use, several as one class")
    parser.add_argument("--keypoints", nargs="+", help="with --annotations: their names, for a file that has none")
    parser.add_argument(
        "--schema", help="with --annotations: a known schema that gives the keypoints (docs/schemas.md)"
    )
    parser.add_argument("--sigmas", nargs="+", type=finite_number, default=[], help="OKS sigmas of the keypoints")
    parser.add_argument(
        "--protocol", choices=("coco", "crowdpose"), default="coco", help="of the evaluation, default %(default)s"
    )
    parser.add_argument(
        "--max-dets", type=positive_int, default=20, help="predictions that count in an image, default %(default)s"
    )
    parser.add_argument("--output", help="folder of report.html and report.json, default: that of the source")
    parser.add_argument("--worst", type=positive_int, default=30, help="images to show, default %(default)s")


def run(args: argparse.Namespace) -> None:
    """Read, analyse and write."""
    from pathlib import Path

    from dynpose.report import is_run, read_predictions, read_run, write_report
    from dynpose.utils.printing import printable

    if is_run(args.source):
        _refuse_for_run(args)
        source = read_run(args.source, args.dataset)
    else:
        source = read_predictions(args.source, _annotation(args))
    path = Path(args.source)
    output = Path(args.output) if args.output else path if path.is_dir() else path.parent
    report = write_report(source, output, num_worst=args.worst)
    for line in (report["verdict"]["headline"], *source.remarks, str(output / "report.html")):
        print(printable(line))


def _annotation(args: argparse.Namespace) -> Any:
    from dynpose.report import Annotation

    category = args.category
    return Annotation(
        dataset=args.dataset,
        json_file=args.annotations,
        image_root=args.image_root,
        category=category[0] if category and len(category) == 1 else category,
        keypoints=args.keypoints,
        schema=args.schema,
        protocol=args.protocol,
        sigmas=args.sigmas,
        max_dets=args.max_dets,
    )


def _refuse_for_run(args: argparse.Namespace) -> None:
    """The config of a run says what it was evaluated on, and how."""
    from dynpose.config import ConfigError

    given = [
        f"--{name.replace('_', '-')}"
        for name in ("annotations", "image_root", "category", "keypoints", "schema", "sigmas")
        if getattr(args, name)
    ]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: {args.source} is a run, whose config.yaml gives its annotation; give a file of "
            f"predictions instead"
        )
