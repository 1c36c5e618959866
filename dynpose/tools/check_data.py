"""Check data sets before training: list all faults at once, and draw a page to verify the flip pairs.

    dynpose check-data --json hands/train.json --images hands/images --output hands.jpg
    dynpose check-data --config-file my_hands.yaml

Faults stop training; they are counted, with a few examples of each kind. Corrected and skipped items, and items that
are valid but perhaps not intended, are listed too (docs/datasets.md has the rules). With a config, everything that
training does before its first step is done, except downloading weights. The exit code is 1 if training would fail
before its first step.

The page shows crops of people from random images, each beside its mirrored copy as in training. Captions have the file
names. Left limbs are blue, right ones orange, and keypoints are numbered. A person who faces the camera has blue on the
right in both pictures. A colour or a number that changes sides with the body, or a limb that crosses it, indicates a
wrong flip pair.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .cli import positive_int

if TYPE_CHECKING:
    from dynpose.data import KeypointSchema
    from dynpose.data.faults import FaultLog
    from dynpose.data.rules import Remarks

NAME = "check-data"
HELP = "report all faults of a data set, and draw samples with their flipped copies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--json", help="an annotation file in COCO's format")
    parser.add_argument("--images", help="with --json: the folder that its file names start from")
    parser.add_argument(
        "--category", nargs="+", help="with --json: the category to use, several to learn as one, or 'all as one'"
    )
    parser.add_argument("--keypoints", nargs="+", help="with --json: their names, for a file that has none")
    parser.add_argument("--schema", help="with --json: a known schema that gives the keypoints (docs/schemas.md)")
    parser.add_argument("--config-file", help="instead: check all data sets of DATASETS.TRAIN and DATASETS.TEST")
    parser.add_argument("--output", default="check_data.jpg", help="the page to draw, default %(default)s")
    parser.add_argument("--samples", type=positive_int, default=8, help="people on the page, default %(default)s")
    parser.add_argument("--examples", type=positive_int, default=5, help="listed of each kind, default %(default)s")
    parser.add_argument("--decode", action="store_true", help="decode every image, not only its header and end")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the people, default %(default)s")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def run(args: argparse.Namespace) -> int:
    """Check, report and draw; return 1 if training would fail."""
    from dynpose.config import ConfigError

    if bool(args.json) == bool(args.config_file) or bool(args.json) != bool(args.images):
        raise ConfigError("give either --json with --images, or --config-file")
    if args.opts and not args.config_file:
        raise ConfigError(f"{' '.join(args.opts)}: overrides go with --config-file")
    data_sets, problem = _of_config(args) if args.config_file else _of_files(args)
    num_faults, samples = 0, []
    for data_set in data_sets:
        log, remarks, records = check(data_set, args.examples, args.decode)
        num_faults += len(log) - log.counts.get(_MET_LATER, 0)
        _report(data_set, log, remarks, records, args.examples)
        if data_set.schema is not None:
            samples += [(record, person, data_set.schema) for record, person in _labelled_people(records, log)]
    _draw(samples, args)
    if problem is not None:
        print(f"training would stop at: {_printable(problem)}")
    print("training would fail" if num_faults or problem else "training can start")
    return 1 if num_faults or problem else 0


# The kind of fault that may occur only after the first step
_MET_LATER = "images that can't be read, which training does not check for (DATASETS.CHECK_IMAGES)"


@dataclasses.dataclass
class DataSet:
    """A data set to check.

    Args:
        name (str): for the report.
        load (Callable): returns the dataset dicts; called with ``on_fault`` and ``on_remarks``, see ``load_pose_json``.
        source (str): its annotation file.
        schema (KeypointSchema | None): its keypoints; None = they can't be read.
        is_train (bool): whether it must have an instance to train on.
        is_flipped (bool): whether training flips its images.
        checks_images (bool): whether training checks for unreadable images before it starts.
    """

    name: str
    load: Callable[..., list[dict[str, Any]]]
    source: str
    schema: KeypointSchema | None = None
    is_train: bool = True
    is_flipped: bool = True
    checks_images: bool = True


def _of_files(args):
    """The data set of --json and --images; None, since there is no config to report an error in."""
    import functools

    from dynpose.data import DatasetError, load_pose_json
    from dynpose.data.datasets import read_schema
    from dynpose.data.known_schemas import known_schema

    category = args.category
    if category is not None:
        category = category[0] if len(category) == 1 else category
    keypoints = args.keypoints if args.schema is None else known_schema(args.schema).names
    load = functools.partial(load_pose_json, args.json, args.images, category=category, keypoints=keypoints)
    try:
        schema = read_schema(args.json, category=category, keypoints=args.keypoints, schema=args.schema)
    except DatasetError:
        schema = None  # the loader reports the fault
    return [DataSet(args.json, load, args.json, schema)], None


def _of_config(args):
    """The data sets of a config, and the error that would stop training before its first step, or None."""
    import functools

    from detectron2.data import DatasetCatalog, MetadataCatalog

    from dynpose.config import ConfigError, load_config
    from dynpose.data.dataset_dicts import load_dataset_dicts
    from dynpose.data.datasets import annotation_files
    from dynpose.engine.preflight import check_and_complete, check_first_step

    try:
        cfg = load_config(args.config_file, args.opts)
    except ConfigError as error:
        return [], error
    completed, problem = cfg.clone(), None
    try:
        check_and_complete(completed)
        check_first_step(completed)
    except Exception as error:  # of the data, the config or detectron2: it would end training
        problem = error
    data_sets = []
    for name in dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]):
        if name not in DatasetCatalog:
            continue
        data_sets.append(
            DataSet(
                name,
                functools.partial(load_dataset_dicts, name),
                next(iter(annotation_files(name)), name),
                _schema(MetadataCatalog.get(name)),
                # with several data sets, it is enough if one has an instance to train on
                is_train=tuple(cfg.DATASETS.TRAIN) == (name,),
                is_flipped=name in cfg.DATASETS.TRAIN and cfg.INPUT.RANDOM_FLIP != "none",
                checks_images=cfg.DATASETS.CHECK_IMAGES,
            )
        )
    return data_sets, problem


def _schema(metadata):
    """The keypoint schema from detectron2's metadata; None if missing or invalid."""
    from dynpose.data import DatasetError, KeypointSchema

    try:
        return KeypointSchema.from_metadata(metadata)
    except DatasetError:
        return None  # training would report the fault


def check(
    data_set: DataSet, num_examples: int = 5, decode: bool = False
) -> tuple[FaultLog, Remarks, list[dict[str, Any]]]:
    """Find all faults of a data set, with the checks of the loader and the mapper.

    Args:
        data_set (DataSet)
        num_examples (int): number of examples kept of each kind.
        decode (bool): see :func:`dynpose.data.image_check.image_fault`.

    Returns:
        tuple[FaultLog, Remarks, list[dict]]: the faults, the corrected, skipped and reported items, and the valid part
        of the data set as dataset dicts.
    """
    from dynpose.data import DatasetError
    from dynpose.data.faults import Fault, FaultLog
    from dynpose.data.image_check import find_broken_images, image_fault
    from dynpose.data.rules import Remarks

    log, remarks, records = FaultLog(num_examples), Remarks(num_examples), []
    try:
        records = data_set.load(on_fault=log, on_remarks=remarks.merge)
    except DatasetError as error:
        log(Fault.from_error("file", error))
    except Exception as error:  # a custom dataset function may raise anything
        remedy = "correct the function that reads the data set"
        log(Fault(data_set.source, "file", f"{type(error).__name__}: {error}", remedy))
    if not isinstance(records, list):  # an iterable can be used for evaluation, but not checked
        records = []
    remedy = "copy it again, correct it, or remove it from the annotation"
    broken = find_broken_images(records, (lambda record: image_fault(record, True)) if decode else None)
    for name, problem in broken:
        log(Fault(name, "images" if data_set.checks_images else _MET_LATER, problem, remedy))
    log.broken_images = {name for name, _ in broken}
    if data_set.is_train and not len(log) and not any(True for _ in _learnable_people(records, log)):
        problem = "there is no person to train on"
        remedy = "label keypoints with visibility 1 or 2 of people who are not crowds and are in the image"
        log(Fault(data_set.source, "people", problem, remedy))
    return log, remarks, records


def _learnable_people(records, log):
    from dynpose.data.rules import is_learnable_person

    return ((record, person) for record, person in _people(records, log) if is_learnable_person(person, record))


def _labelled_people(records, log):
    """(record, annotation) of all people with labelled keypoints, in readable images with a size."""
    from dynpose.data.ignored_regions import has_labelled_keypoints

    return [
        (record, person)
        for record, person in _people(records, log)
        if has_labelled_keypoints(person) and "width" in record and "height" in record
    ]


def _people(records, log):
    """(record, annotation) of all people except crowds, in readable images."""
    for record in records:
        if record.get("file_name") not in log.broken_images:
            yield from ((record, person) for person in record.get("annotations", ()) if not person.get("iscrowd"))


def _report(data_set, log, remarks, records, num_examples):
    from dynpose.data.flip_names import flip_pairs_concern
    from dynpose.data.ignored_regions import has_labelled_keypoints

    people = [person for record in records for person in record.get("annotations", ()) if not person.get("iscrowd")]
    labelled = sum(map(has_labelled_keypoints, people))
    counts = f"{len(records)} images, {len(people)} people, {labelled} of them with labelled keypoints"
    print(f"{data_set.name}: {counts if records else 'not read'}")
    schema = data_set.schema
    if schema is not None:
        pairs = ", ".join(f"{left} / {right}" for left, right in schema.flip_pairs) or "none"
        print(f"  {schema.num_keypoints} keypoints; change places in a flipped image: {pairs}")
        limbs = ", ".join(f"{schema.names[a]} - {schema.names[b]}" for a, b in schema.skeleton[:3])
        print(f"  {len(schema.skeleton)} limbs{': ' if limbs else ''}{limbs}{', ...' if schema.skeleton[3:] else ''}")
        concern = flip_pairs_concern(schema) if data_set.is_flipped else None
        if concern:
            print(f"  {_printable(concern)}")
    if len(log) > log.counts.get(_MET_LATER, 0):
        print("  faults, at which training stops:")
    for kind, count in log.counts.items():
        print(f"    {kind}: {count}")
        for example in log.examples[kind]:
            print(f"      {_printable(example)}")
        if count > len(log.examples[kind]):
            print("      ...")
    for decision, title in (
        ("corrected", "corrected"),
        ("skipped", "skipped"),
        ("reported", "reported, read unchanged"),
    ):
        lines = remarks.of(decision, num_examples=num_examples)
        if lines:
            print(f"  {title}:")
        for line in lines:
            print(f"    {_printable(line)}")


def _draw(samples, args):
    """Draw the page if there are people to draw."""
    import random

    if not samples:
        print("no page: there is no person with labelled keypoints")
        return
    from .flip_page import MAX_PIXELS, draw_page

    drawable = [sample for sample in samples if sample[0]["height"] * sample[0]["width"] <= MAX_PIXELS]
    if len(drawable) < len(samples):
        num_large = len(samples) - len(drawable)
        print(f"not drawn: {num_large} people in images of more than {MAX_PIXELS:,} pixels", file=sys.stderr)
    chosen = random.Random(args.seed).sample(drawable, min(args.samples, len(drawable)))
    page, skipped = draw_page(chosen)
    for reason in skipped:
        print(_printable(f"not drawn: {reason}"), file=sys.stderr)
    if page is not None:
        page.save(args.output)
        print(f"{args.output}: {len(chosen) - len(skipped)} people, each with the mirrored copy on the right")


def _printable(text):
    """Text in characters that the terminal's encoding supports, on one line."""
    from dynpose.utils.printing import printable

    return printable(" ".join(str(text).split()))
