"""Check data sets before training: all faults at once, and a page that shows whether mirroring is right.

    dynpose check-data --json hands/train.json --images hands/images --output hands.jpg
    dynpose check-data --config-file my_hands.yaml

Faults are what training stops at; they are counted, and of each kind a few are listed. Remarks are what it goes on with
but was perhaps not meant. The page shows people cut out of random images, each beside the flipped twin that training
makes of it: left limbs are blue, right ones orange, keypoints have their numbers. Whoever faces the camera has blue at
the right in both pictures. A colour or a number that changed sides with the body, or a limb that crosses it, is a wrong
flip pair. The exit code is 1 where training would fail.
"""

import sys
from collections import defaultdict

from .cli import positive_int

NAME = "check-data"
HELP = "report all faults of a data set, and draw samples with their flipped twins"


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    parser.add_argument("--json", help="an annotation file in COCO's format")
    parser.add_argument("--images", help="with --json: the folder that its file names start from")
    parser.add_argument("--category", help="with --json: the one category to use")
    parser.add_argument("--config-file", help="instead: check all data sets of DATASETS.TRAIN and DATASETS.TEST")
    parser.add_argument("--output", default="check_data.jpg", help="the page to draw, default %(default)s")
    parser.add_argument("--samples", type=positive_int, default=8, help="people on the page, default %(default)s")
    parser.add_argument("--examples", type=positive_int, default=5, help="listed of each kind, default %(default)s")
    parser.add_argument("--decode", action="store_true", help="decode every image, not only its header and end")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the people, default %(default)s")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def run(args):
    """Check, report and draw; 1 if training would fail."""
    from dynpose.config import ConfigError

    if bool(args.json) == bool(args.config_file) or bool(args.json) != bool(args.images):
        raise ConfigError("give either --json with --images, or --config-file")
    if args.opts and not args.config_file:
        raise ConfigError(f"{' '.join(args.opts)}: overrides go with --config-file")
    data_sets = _of_config(args) if args.config_file else [_of_files(args)]
    num_faults, samples = 0, []
    for data_set in data_sets:
        log, records, schema = check(data_set, args.examples, args.decode)
        num_faults += len(log)
        _report(data_set, log, records, schema, args.examples)
        if schema is not None:
            samples += [(record, person, schema) for record, person in _labelled_people(records, log)]
    _draw(samples, args)
    print("training would fail" if num_faults else "training can start")
    return 1 if num_faults else 0


class DataSet:
    """What is to be checked: annotation files with their images.

    Args:
        name (str): for the report.
        json_files (Sequence[str]): its annotation.
        image_root (str): the folder of its images.
        category (str | None): see ``load_pose_json``.
        annotated (bool): False = images alone.
        is_train (bool): there must be somebody to learn from.
        schema (KeypointSchema | None): its keypoints; None = those of the first file.
    """

    def __init__(self, name, json_files, image_root, category=None, *, annotated=True, is_train=True, schema=None):
        self.name, self.json_files, self.image_root = name, json_files, image_root
        self.category, self.annotated, self.is_train, self.schema = category, annotated, is_train, schema


def _of_files(args):
    return DataSet(args.json, [args.json], args.images, args.category)


def _of_config(args):
    """The data sets of a config. What can't even be registered is an error of its own."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from dynpose.config import ConfigError, load_config
    from dynpose.data import register_datasets_from_cfg, schema_from_cfg
    from dynpose.data.datasets import annotation_files

    cfg = load_config(args.config_file, args.opts)
    register_datasets_from_cfg(cfg)
    schema = schema_from_cfg(cfg)
    data_sets = []
    for name in dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]):
        if name not in DatasetCatalog or not annotation_files(name):
            raise ConfigError(f"data set {name!r} has no annotation file that could be checked")
        loader = DatasetCatalog[name]
        data_sets.append(
            DataSet(
                name,
                annotation_files(name),
                MetadataCatalog.get(name).image_root,
                getattr(loader, "category", None),
                annotated=getattr(loader, "keywords", {}).get("annotated", True),
                is_train=name in cfg.DATASETS.TRAIN,
                schema=schema,
            )
        )
    return data_sets


def check(data_set, num_examples=5, decode=False):
    """Find all faults of a data set, with the checks of the loader and the mapper.

    Args:
        data_set (DataSet)
        num_examples (int): kept of each kind.
        decode (bool): see :func:`dynpose.data.image_check.image_fault`.

    Returns:
        tuple[FaultLog, list[dict], KeypointSchema | None]: the faults, the sound part of the data set as dataset dicts,
        and its keypoints, where they can be read.
    """
    from dynpose.data import DatasetError, KeypointSchema, load_pose_json
    from dynpose.data.coco_json import read_coco_json, select_categories
    from dynpose.data.faults import Fault, FaultLog
    from dynpose.data.image_check import find_broken_images, image_fault

    log, records, schema = FaultLog(num_examples), [], data_set.schema
    for json_file in data_set.json_files:
        annotated = data_set.annotated
        try:
            if annotated and schema is None:
                data = read_coco_json(json_file, required=("categories",))
                category = select_categories(data, json_file, data_set.category)[0]
                schema = KeypointSchema.from_category(category, source=json_file)
        except DatasetError as error:
            log(Fault.from_error(json_file, "categories", error))
            annotated = False  # its images can still be looked at
        try:
            records += load_pose_json(
                json_file, data_set.image_root, category=data_set.category, annotated=annotated, on_fault=log
            )
        except DatasetError as error:
            log(Fault.from_error(json_file, "file", error))
    mend = "copy it again, correct it, or take it out of the annotation"
    broken = find_broken_images(records, lambda record: image_fault(record, decode))
    for name, problem in broken:
        log(Fault(name, "images", problem, mend))
    log.broken_images = {name for name, _ in broken}
    if data_set.annotated and data_set.is_train and schema is not None and not _labelled_people(records, log):
        what = "nobody with labelled keypoints is left in it"
        log(Fault(data_set.json_files[0], "people", what, "label keypoints with visibility 1 or 2"))
    return log, records, schema


def _labelled_people(records, log):
    """(record, annotation) of everybody with labelled keypoints, in images that can be read."""
    from dynpose.data.ignored_regions import has_labelled_keypoints

    return [
        (record, person)
        for record in records
        if record["file_name"] not in log.broken_images
        for person in record["annotations"]
        if not person["iscrowd"] and has_labelled_keypoints(person)
    ]


def _report(data_set, log, records, schema, num_examples):
    from dynpose.data.ignored_regions import has_labelled_keypoints

    people = [person for record in records for person in record["annotations"] if not person["iscrowd"]]
    labelled = sum(map(has_labelled_keypoints, people))
    print(f"{data_set.name}: {len(records)} images, {len(people)} people, {labelled} of them with labelled keypoints")
    if schema is not None:
        pairs = ", ".join(f"{left} / {right}" for left, right in schema.flip_pairs) or "none"
        print(f"  {schema.num_keypoints} keypoints; change places in a flipped image: {pairs}")
    for title, counts, examples in (
        ("faults, at which training stops", log.counts, log.examples),
        ("remarks, with which training goes on", *remarks(records, num_examples)),
    ):
        if counts:
            print(f"  {title}:")
        for kind, count in counts.items():
            print(f"    {kind}: {count}")
            for example in examples[kind]:
                print(f"      {_printable(example)}")
            if count > len(examples[kind]):
                print("      ...")


def remarks(records, num_examples):
    """What is odd in sound records.

    Args:
        records (list[dict]): of ``load_pose_json``.
        num_examples (int): kept of each kind.

    Returns:
        tuple[dict[str, int], dict[str, list[str]]]: how often, and where, by kind.
    """
    counts, examples = defaultdict(int), defaultdict(list)

    def note(kind, where):
        counts[kind] += 1
        if len(examples[kind]) < num_examples:
            examples[kind].append(where)

    seen = set()
    for record in records:
        name = record["file_name"]
        if name in seen:
            note("images that occur more than once", name)
        seen.add(name)
        for person in record["annotations"]:
            where = f"{name}: box {[round(value, 1) for value in person['bbox']]}"
            x, y, width, height = person["bbox"]
            right, bottom = min(x + width, record["width"]), min(y + height, record["height"])
            if right - max(x, 0) < 1 or bottom - max(y, 0) < 1:
                note("boxes with less than a pixel in the image, left out", where)
            points = list(zip(person["keypoints"][0::3], person["keypoints"][1::3], person["keypoints"][2::3]))
            points = [(u, v) for u, v, visibility in points if visibility]
            if not points and not person["iscrowd"]:
                note("people without labelled keypoints, learned as boxes", where)
            if any(not (0 <= u < record["width"] and 0 <= v < record["height"]) for u, v in points):
                note("people with keypoints outside the image, which are left out", where)
            if any(not (x - width <= u <= x + 2 * width and y - height <= v <= y + 2 * height) for u, v in points):
                note("people with keypoints far outside their box", where)
    return counts, examples


def _draw(samples, args):
    """Draw the page, if there is anybody to draw."""
    import random

    if not samples:
        print("no page: nobody with labelled keypoints to draw")
        return
    from .flip_page import draw_page

    chosen = random.Random(args.seed).sample(samples, min(args.samples, len(samples)))
    page, left_out = draw_page(chosen)
    for reason in left_out:
        print(_printable(f"not drawn: {reason}"), file=sys.stderr)
    if page is not None:
        page.save(args.output)
        print(f"{args.output}: {len(chosen) - len(left_out)} people, each with the flipped twin on the right")


def _printable(text):
    """What any terminal takes, on one line."""
    encoding = sys.stdout.encoding or "utf-8"
    return " ".join(str(text).split()).encode(encoding, "backslashreplace").decode(encoding)
