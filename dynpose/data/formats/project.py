"""An annotation project of another tool in memory: what every reader returns and every writer takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..faults import Fault
from ..flip_names import infer_flip_pairs
from ..known_schemas import schema_by_keypoints
from ..schema import KeypointSchema

__all__ = [
    "CORNER",
    "INDEX",
    "Notes",
    "Origin",
    "PoseCategory",
    "PoseImage",
    "PosePerson",
    "PoseProject",
    "ReadOptions",
    "ZeroPoints",
    "complete_categories",
    "to_pixel_index",
]

Origin = Literal["corner", "index"]
CORNER: Origin = "corner"
"""(0, 0) is the upper left corner of the image; the centre of its first pixel is (0.5, 0.5)."""
INDEX: Origin = "index"
"""(0, 0) is the centre of the first pixel, as in COCO's keypoints."""

ZeroPoints = Literal["missing", "visible"]


@dataclass
class PoseCategory:
    """A type of object with keypoints.

    Attributes:
        name: its name.
        keypoints: the K keypoint names in the order of the arrays.
        skeleton: limbs as pairs of 0-based keypoint indices.
        flip_pairs: pairs of names that change places in a mirrored image; None = the project gives none.
        pairs_from, limbs_from: the source of the two, for the report.
    """

    name: str
    keypoints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] | None = None
    pairs_from: str = "in the project"
    limbs_from: str = "in the project"

    def schema(self) -> KeypointSchema:
        """The keypoints as a schema.

        Raises:
            DatasetError: the names, pairs or limbs contradict each other.
        """
        return KeypointSchema(self.keypoints, self.flip_pairs or (), self.skeleton)


@dataclass
class PosePerson:
    """One object of an image.

    Attributes:
        category: name of its category.
        keypoints: (K, 3) x, y in pixels with the origin of the project, visibility 0, 1 or 2; zeros if not labelled.
        box: x, y, width, height in continuous pixels from the corner of the image; None if the project has none.
        track: the individual, or the object that it is over several images; None if the project has none.
    """

    category: str
    keypoints: np.ndarray
    box: tuple[float, float, float, float] | None = None
    track: str | None = None


@dataclass
class PoseImage:
    """An image of a project.

    Attributes:
        name: its name in the project, for messages and for the file of an extracted image.
        path: its file; None for an image inside another file.
        content: returns an image that is inside another file; None for a file.
        people: the annotated objects.
        split: name of the part of the data set: "train", "val", ...; None if the project has none.
        source: the annotation file that it is from.
        size: width and height in pixels as displayed; None = not read yet.
        stated_size: the size that the project states, which the file must have; None if it states none.
    """

    name: str
    path: Path | None = None
    content: Callable[[], Image.Image] | None = None
    people: list[PosePerson] = field(default_factory=list)
    split: str | None = None
    source: Path | None = None
    size: tuple[int, int] | None = None
    stated_size: tuple[int, int] | None = None


class Notes:
    """Losses, changes and remarks of a conversion by kind, and the faults that end it.

    Attributes:
        lost, changed, remarks (dict[str, tuple[int, str]]): kind -> number of items and the first of them.
        faults (list[Fault]): items that have no unique meaning.
    """

    def __init__(self) -> None:
        self.lost: dict[str, tuple[int, str]] = {}
        self.changed: dict[str, tuple[int, str]] = {}
        self.remarks: dict[str, tuple[int, str]] = {}
        self.faults: list[Fault] = []

    def lose(self, kind: str, item: str, count: int = 1) -> None:
        """Count items of the project that the result does not have."""
        _count(self.lost, kind, item, count)

    def change(self, kind: str, item: str, count: int = 1) -> None:
        """Count items that the result has in another form."""
        _count(self.changed, kind, item, count)

    def remark(self, kind: str, item: str, count: int = 1) -> None:
        """Count items that are converted unchanged and may be mistakes."""
        _count(self.remarks, kind, item, count)

    def fault(self, source: str | Path, kind: str, problem: str, remedy: str) -> None:
        """Note an item that can't be converted; :meth:`raise_faults` ends the conversion."""
        self.faults.append(Fault(str(source), kind, problem, remedy))

    def raise_faults(self) -> None:
        """End the conversion if there are faults.

        Raises:
            DatasetError: the number of faults, and the first of every kind with its file, item and remedy.
        """
        if not self.faults:
            return
        if len(self.faults) == 1:
            raise self.faults[0].error()
        first = {(fault.kind, fault.remedy): fault for fault in reversed(self.faults)}
        shown = list(reversed(first.values()))[:3]
        listed = "; ".join(f"({i}) {fault}" for i, fault in enumerate(shown, 1))
        raise Fault("", "faults", f"{len(self.faults)} items can't be converted, among them: {listed}").error()

    def merge(self, other: "Notes") -> None:
        """Add the notes on another part of the project."""
        for mine, theirs in zip(
            (self.lost, self.changed, self.remarks), (other.lost, other.changed, other.remarks), strict=True
        ):
            for kind, (count, item) in theirs.items():
                _count(mine, kind, item, count)
        self.faults += other.faults


def _count(counts: dict[str, tuple[int, str]], kind: str, item: str, count: int) -> None:
    if count:
        before, first = counts.get(kind, (0, item))
        counts[kind] = (before + count, first)


@dataclass(frozen=True)
class ReadOptions:
    """Answers to what a project leaves open.

    Attributes:
        image_dirs: folders to search for images, before the project's own.
        keypoints: K names, in this order, for a format that has none or no order of them.
        categories: names of the categories to convert, for a reader that must know; None = all.
        zero_points: whether keypoints without a visibility at (0, 0) are missing or visible; None = not answered.
    """

    image_dirs: tuple[Path, ...] = ()
    keypoints: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    zero_points: ZeroPoints | None = None


@dataclass
class PoseProject:
    """The content of a project.

    Attributes:
        categories: the types of objects, in the order of the project.
        images: in the order of the project.
        origin: of the keypoints of its people.
        notes: losses, changes and remarks so far.
    """

    categories: list[PoseCategory]
    images: list[PoseImage]
    origin: Origin
    notes: Notes

    def people(self) -> Iterable[tuple[PoseImage, PosePerson]]:
        """All people, each with its image."""
        return ((image, person) for image in self.images for person in image.people)

    def select(self, names: Sequence[str]) -> None:
        """Keep people of the named categories.

        Raises:
            DatasetError: the project has no category of a name.
        """
        known = [item.name for item in self.categories]
        for name in names:
            if name not in known:
                raise Fault("", "categories", f"no category {name!r}; the project has {', '.join(known)}").error()
        self.categories = [item for item in self.categories if item.name in names]
        for image in self.images:
            for person in image.people:
                if person.category not in names:
                    self.notes.lose(f"people of the category {person.category!r}", image.name)
            image.people = [person for person in image.people if person.category in names]


def complete_categories(
    project: PoseProject,
    pairs: Sequence[tuple[str, str]] | None = None,
    skeleton: Sequence[tuple[str, str]] | None = None,
) -> None:
    """Fill in the pairs and limbs that a project lacks.

    Args:
        project: changed in place.
        pairs, skeleton: pairs of names that replace those of the project; None = those of the project, else the
            published ones of exactly these keypoints, else, for pairs, those that differ in left and right by name.

    Raises:
        DatasetError: a pair or a limb names no keypoint, or see :class:`~dynpose.data.schema.KeypointSchema`.
    """
    for category in project.categories:
        known = schema_by_keypoints(category.keypoints)
        if pairs is not None:
            category.flip_pairs, category.pairs_from = tuple(pairs), "as given"
        elif category.flip_pairs is None and known is not None:
            category.flip_pairs, category.pairs_from = known.flip_pairs, "proposed: published for these keypoints"
        elif category.flip_pairs is None:
            category.flip_pairs, category.pairs_from = infer_flip_pairs(category.keypoints), "proposed by name"
        if skeleton is not None:
            index = {name: i for i, name in enumerate(category.keypoints)}
            for name in {name for limb in skeleton for name in limb} - index.keys():
                raise Fault("", "limbs", f"limb of {name!r}: {category.name!r} has no keypoint of this name").error()
            category.skeleton, category.limbs_from = tuple((index[a], index[b]) for a, b in skeleton), "as given"
        elif not category.skeleton and known is not None:
            category.skeleton, category.limbs_from = known.skeleton, "proposed: published for these keypoints"
        category.schema()


def to_pixel_index(project: PoseProject) -> None:
    """Move the keypoints of a project to COCO's origin, the centre of the first pixel, in place."""
    for image, person in project.people():
        labelled = person.keypoints[:, 2] > 0
        at_zero = int((labelled & (person.keypoints[:, :2] == 0).all(axis=1)).sum())
        project.notes.remark("labelled points at exactly (0, 0), often missing ones", image.name, at_zero)
        person.keypoints = np.where(labelled[:, None], person.keypoints, 0.0)
        if project.origin == CORNER:
            person.keypoints[labelled, :2] -= 0.5
    project.origin = INDEX
