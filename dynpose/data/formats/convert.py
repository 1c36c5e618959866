"""Converting annotation projects: reading INPUTs as one project with COCO's origin, and writing it."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..coco_json import load_pose_json
from ..faults import Fault
from ..people import MAX_COORDINATE
from ..rules import RULES, Remarks
from ..schema import DatasetError
from . import coco, yolo
from .images import check_sizes, extract_images, image_root, read_sizes
from .project import Origin, PoseProject, ReadOptions, complete_categories, to_pixel_index
from .registry import Format, detect_format, format_by_name, project_files

__all__ = ["Conversion", "Request", "convert"]


@dataclass(frozen=True)
class Request:
    """What to convert, and the answers to what a project leaves open.

    Attributes:
        inputs: files and folders.
        output: a .json file or, for YOLO-pose, a new folder.
        source_format: name of the format of the inputs; None = detected.
        target_format: format to write.
        splits: a split for each input, which replaces those of the project; None = those of the project.
        options: see :class:`~dynpose.data.formats.project.ReadOptions`.
        origin: of the keypoints of the inputs; None = the format's.
        pairs, limbs: texts ``first:second`` of keypoint names, which replace those of the project; None = see
            :func:`~dynpose.data.formats.project.complete_categories`.
        copy_images: copy image files to the output.
        visibility: for YOLO-pose, write the visibilities.
    """

    inputs: tuple[Path, ...]
    output: Path
    source_format: str | None = None
    target_format: Literal["coco", "yolo-pose"] = "coco"
    splits: tuple[str, ...] | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    origin: Origin | None = None
    pairs: tuple[str, ...] | None = None
    limbs: tuple[str, ...] | None = None
    copy_images: bool = False
    visibility: bool = True


@dataclass(frozen=True)
class Conversion:
    """The result of :func:`convert`.

    Attributes:
        source_format: the format of the inputs.
        origin: of their keypoints, as taken.
        project: what was written, with COCO's origin, and the notes.
        files: the written annotation files; for YOLO-pose its data.yaml.
        image_root: the folder that file names start from.
        num_images_written: number of extracted and copied image files.
    """

    source_format: Format
    origin: Origin
    project: PoseProject
    files: tuple[Path, ...]
    image_root: Path
    num_images_written: int


def convert(request: Request) -> Conversion:
    """Convert annotation projects to COCO keypoints or YOLO-pose.

    Nothing is written before everything is read and checked, except extracted and copied images.

    Args:
        request: what to convert.

    Returns:
        Conversion

    Raises:
        DatasetError: an input is of no known format, items can't be converted, or the output is not free.
    """
    _check_output(request)
    source = _source_format(request)
    project = _read(request, source)
    origin = project.origin = request.origin or project.origin
    _check_images(project, source)
    if request.options.categories is not None:
        project.select(request.options.categories)
    names = [name for category in project.categories for name in category.keypoints]
    complete_categories(project, _parse_pairs(request.pairs, names), _parse_pairs(request.limbs, names))
    _check_numbers(project)
    to_pixel_index(project)
    _drop_empty_people(project)
    folder = request.output.with_name(f"{request.output.stem}_images")
    copies = request.copy_images and request.target_format == "coco"
    num_written = extract_images(project.images, folder, copy=copies)
    read_sizes(project.images, project.notes)
    check_sizes(project.images, project.notes)
    project.notes.raise_faults()
    if request.target_format == "yolo-pose":
        _count_lost_tracks(project)
        yolo.write(project, request.output, visibility=request.visibility, copy_images=request.copy_images)
        files, root = [request.output / "data.yaml"], request.output / "images"
    else:
        root = image_root(project.images, folder)
        data = coco.to_coco(project, root)
        request.output.parent.mkdir(parents=True, exist_ok=True)
        _check_by_reader(project, data, request.output, root)
        files = coco.write(data, request.output)
    return Conversion(source, origin, project, tuple(files), root, num_written)


def _check_output(request: Request) -> None:
    output = str(request.output)
    if request.target_format == "coco" and request.output.suffix.lower() != ".json":
        raise Fault(output, "output", "the name of a COCO file ends in .json", "correct --output").error()
    if any(os.path.abspath(path) == os.path.abspath(output) for path in request.inputs):
        raise Fault(output, "output", "it is an INPUT and would be overwritten", "give another name").error()
    if request.target_format == "yolo-pose":
        yolo.check_output(request.output)
    if request.splits is not None and len(request.splits) != len(request.inputs):
        problem = f"{len(request.splits)} splits for {len(request.inputs)} inputs"
        raise Fault("--splits", "splits", problem, "give one for each INPUT").error()


def _source_format(request: Request) -> Format:
    if request.source_format is not None:
        source = format_by_name(request.source_format)
    else:
        found = [detect_format(path) for path in request.inputs]
        source = found[0]
        for path, other in zip(request.inputs, found):
            if other != source:
                problem = f"it is {other.title}, and {request.inputs[0]} is {source.title}"
                raise Fault(str(path), "formats", problem, "convert them one by one").error()
    if source.name == request.target_format:
        raise Fault(str(request.inputs[0]), "formats", f"it is {source.title} already", "choose another --to").error()
    return source


def _read(request: Request, source: Format) -> PoseProject:
    """The inputs as one project, with their splits."""
    files = [project_files(path, source) for path in request.inputs]
    together = [list(dict.fromkeys(file for group in files for file in group))] if source.is_joint else files
    first, *others = [source.read(paths, request.options) for paths in together]
    for paths, project in zip(together[1:], others):
        _merge(first, project, paths[0])
    if request.splits is not None:
        split_of = {file: split for group, split in zip(files, request.splits) for file in group}
        for image in first.images:
            image.split = image.split if image.source is None else split_of[image.source]
    return first


def _merge(first: PoseProject, other: PoseProject, path: Path) -> None:
    """Add a project whose categories are those of the first."""
    if [(item.name, item.keypoints) for item in other.categories] != [
        (item.name, item.keypoints) for item in first.categories
    ]:
        problem = "its classes or keypoints differ from those of the first INPUT"
        raise Fault(str(path), "categories", problem, "convert the projects one by one").error()
    first.images += other.images
    first.notes.merge(other.notes)


def _parse_pairs(texts: Sequence[str] | None, names: Sequence[str]) -> list[tuple[str, str]] | None:
    """Pairs of names from ``first:second``, where a name may have colons too."""
    if texts is None:
        return None
    pairs = []
    for text in texts:
        words = text.split(":")
        splits = [(":".join(words[:i]), ":".join(words[i:])) for i in range(1, len(words))]
        known = [pair for pair in splits if set(pair) <= set(names)]
        if len(known) != 1:
            problem = f"{text!r} is no pair of the keypoints {', '.join(dict.fromkeys(names))}"
            raise Fault("", "pairs", problem, "write name:name").error()
        pairs += known
    return pairs


def _check_numbers(project: PoseProject) -> None:
    """Refuse coordinates that are in no image: a file can hold infinity."""
    for image, person in project.people():
        numbers = [*person.keypoints.ravel().tolist(), *(person.box or ())]
        if not all(abs(number) <= MAX_COORDINATE for number in numbers):
            problem = f"image {image.name!r}: a keypoint or box has a coordinate that is no number, or in no image"
            project.notes.fault(image.source or "INPUT", "coordinates", problem, "correct it in the tool")
    project.notes.raise_faults()


def _drop_empty_people(project: PoseProject) -> None:
    for image in project.images:
        kept = [item for item in image.people if item.box is not None or (item.keypoints[:, 2] > 0).any()]
        project.notes.lose("people without a box or a labelled point", image.name, len(image.people) - len(kept))
        image.people = kept


def _check_images(project: PoseProject, source: Format) -> None:
    """Refuse a project without images or keypoints, or with images that are found in the same file."""
    if not project.images or not any(category.keypoints for category in project.categories):
        problem = f"the project has no {'keypoints' if project.images else 'annotated images'}"
        raise Fault("INPUT", "images", problem, "annotate keypoints, or give another project").error()
    seen: dict[Path, str] = {}
    for image in project.images:
        if image.path is None or source.name == "coco":  # its reader counts images that are listed twice
            continue
        if image.path in seen:
            problem = f"it is both image {seen[image.path]!r} and image {image.name!r}"
            project.notes.fault(image.path, "images", problem, "give the folder that holds both by --image-dir")
        seen[image.path] = image.name
    project.notes.raise_faults()


def _count_lost_tracks(project: PoseProject) -> None:
    for image, person in project.people():
        if person.track is not None:
            project.notes.lose("tracks, which YOLO-pose does not have", image.name)


def _check_by_reader(project: PoseProject, data: dict[str, Any], output: Path, root: Path) -> None:
    """Read the result as training does, before it replaces an earlier file, and add the reader's remarks.

    Raises:
        DatasetError: the reader refuses it.
    """
    remarks = Remarks()
    # the reader sees the coordinates after a change of the origin
    ignored = ("other categories", "point at (0, 0)")
    names = [category.name for category in project.categories if category.keypoints == project.categories[0].keypoints]
    with tempfile.TemporaryDirectory(prefix=".dynpose-", dir=output.parent) as folder:
        file = Path(folder, output.name)
        coco.write(data, file)
        try:
            load_pose_json(file, root, category=names if len(names) > 1 else names[0], on_remarks=remarks.merge)
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(file), str(output))) from error
    for rule, count in remarks.counts.items():
        if rule not in ignored:
            project.notes.remark(f"annotations that {RULES[rule].text.split(':')[0]}", remarks.examples[rule][0], count)
