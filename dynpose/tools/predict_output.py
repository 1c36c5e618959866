"""What the flows of ``dynpose predict`` share: the output folder, the header of the results, the pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynpose.data.sources import Source
    from dynpose.engine.file_prediction import RecordingPredictor

_COORDINATES = (
    "keypoints: [x, y, confidence in 0..1] in COCO's pixel convention, where (0, 0) is the centre of the upper left "
    "pixel. bbox: [x, y, width, height] of the box's edges, where (0, 0) is the upper left corner of the image. Pixels "
    "of the image after its EXIF orientation is applied."
)


@contextmanager
def only_run_in(output: Path, stem: str = "predictions") -> Iterator[None]:
    """Lock the results of that name in the output folder, since two runs would mix their results."""
    from dynpose.config import ConfigError
    from dynpose.utils.locking import LockedError, locked

    try:
        with locked(str(output / f"{stem}.json.lock")):
            yield
    except LockedError as error:
        raise ConfigError(
            f"--output {output}: in use by {error.owner}; wait for its end, or give another folder"
        ) from None


def refuse_to_overwrite(sources: Sequence[Source], output: Path) -> None:
    """Raise a ConfigError if a result would replace an input, or the result of another input."""
    from dynpose.config import ConfigError

    files = {source.location.resolve() for source in sources if isinstance(source.location, Path)}
    results = set()
    for source in sources:
        name = source.name
        if source.kind != "image":
            from dynpose.engine.video_prediction import result_name

            name = result_name(name)
        if (output / name).resolve() in files:
            raise ConfigError(f"--output {output}: the picture {name} would overwrite an image; give another folder")
        if name in results:
            raise ConfigError(f"--input: the results of two inputs are called {name}; predict them one after another")
        results.add(name)


def info(args: argparse.Namespace, predictor: RecordingPredictor, beyond_limit: int) -> dict[str, Any]:
    """The meaning of the numbers, for the header of the results; ``beyond_limit``: images that --limit excludes."""
    from dynpose.version import __version__

    # an exported file has its own
    precision = getattr(predictor, "precision", None)
    return {
        "description": f"dynpose {__version__}: {args.weights}"
        + (f" with {args.config_file}" * bool(args.config_file)),
        "coordinates": _COORDINATES,
        "keypoint_names": list(predictor.schema.names),
        "skeleton": [list(edge) for edge in predictor.schema.skeleton],
        "skeleton_indices": "start at 0",
        "category_names": list(predictor.metadata.get("thing_classes") or []),
        **({"precision": precision} if precision else {}),
        "images_beyond_limit": beyond_limit,
    }


def picture_style(args: argparse.Namespace, class_names: Sequence[str]) -> dict[str, Any]:
    """The arguments of draw_poses."""
    return {
        "score_threshold": args.score_threshold,
        "keypoint_threshold": args.keypoint_threshold,
        "show_boxes": args.show_boxes,
        "show_scores": args.show_conf,
        "show_labels": args.show_labels,
        "class_names": class_names,
        "line_width": args.line_width,
        "point_radius": args.point_radius,
    }


class Counts:
    """Counts of the results; people with a score of at least ``score_threshold`` are shown."""

    def __init__(self, score_threshold: float):
        self.score_threshold = score_threshold
        self.images = self.frames = self.people = self.shown = self.notes = self.without_picture = 0
        self.not_finite = self.images_not_finite = 0

    def add(self, entry: dict[str, Any]) -> None:
        """Count the results of an image or a frame."""
        scores = [person["score"] for person in entry["instances"]]
        self.images += "frame" not in entry
        self.frames += "frame" in entry
        self.people += len(scores)
        self.shown += sum(score >= self.score_threshold for score in scores)
        self.notes += "note" in entry
        self.without_picture += "picture_error" in entry
        self.not_finite += entry["not_finite"]
        self.images_not_finite += entry["not_finite"] > 0
