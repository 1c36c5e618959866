"""CVAT's XML, "CVAT for images 1.1": skeletons to correct by hand.

Coordinates are pixels from the image's corner; ``outside`` means not labelled
(https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat).
"""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from .results import Results, Tally, json_text, text_file, xml_attribute

__all__ = ["write"]

_FOLDER = "cvat"
# Side of the drawing of a skeleton: CVAT's unit is a percent
_DRAWING = 100
_MARGIN = 5


def write(results: Results, folder: Path) -> list[str]:
    """Write ``cvat/annotations.xml`` of the images, an XML per video, and ``cvat/labels.json``.

    ``labels.json`` is for the tab "Raw" of the labels of a CVAT task, which must exist before annotations are uploaded.
    The images of a task are found by their names, the frames of a video by their numbers. People whose score reaches
    the threshold become skeletons; their keypoints of low confidence or outside the image are ``outside``.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: lines for the user.
    """
    target = folder / _FOLDER
    target.mkdir(exist_ok=True)
    labels = _labels(results)
    with text_file(target / "labels.json") as file:
        file.write(json_text(labels) + "\n")
    lines, images = [], (entry for entry in results.entries() if "frame" not in entry)
    if any("frame" not in entry for entry in results.entries()):
        lines += _write_xml(results, labels, target / "annotations.xml", images)
    frames = (entry for entry in results.entries() if "frame" in entry)
    for video, entries in groupby(frames, lambda entry: entry["file_name"]):
        path = target / f"{video}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines += _write_xml(results, labels, path, entries)
    return [f"{target / 'labels.json'}: the labels of the task", *lines]


def _write_xml(
    results: Results, labels: list[dict[str, Any]], path: Path, entries: Iterable[dict[str, Any]]
) -> list[str]:
    number, people = 0, 0
    tracks = Tally("people have a track id, which the file does not hold")
    with text_file(path) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.writelines(_meta(labels))
        for number, entry in enumerate(entries, 1):
            shown = results.shown_people(entry)
            people += len(shown)
            for person in shown:
                if "track_id" in person:
                    tracks.add(str(person["track_id"]))
            _write_image(file, results, entry, number - 1, shown)
        file.write("</annotations>\n")
    return [f"{path}: {number} images, {people} people", *tracks.lines()]


def _write_image(
    file: IO[str], results: Results, entry: dict[str, Any], number: int, people: list[dict[str, Any]]
) -> None:
    number, name = entry.get("frame", number), entry["file_name"]
    if "frame" in entry:  # CVAT's name of a frame
        name = f"frame_{number:06d}"
    size = f'width="{entry["width"]}" height="{entry["height"]}"'
    file.write(f'  <image id="{number}" name={xml_attribute(name)} {size}>\n')
    for person in people:
        label = xml_attribute(results.class_name(person["category"]))
        file.write(f'    <skeleton label={label} source="auto" occluded="0" z_order="0">\n')
        points = results.keypoints_from_corner(entry, person)
        for keypoint, point in zip(results.keypoint_names, points):
            file.write(
                f'      <points label={xml_attribute(keypoint)} source="auto" outside="{int(not point.is_shown)}" '
                f'occluded="0" points="{point.x:.3f},{point.y:.3f}"/>\n'
            )
        file.write("    </skeleton>\n")
    file.write("  </image>\n")


def _text(text: str) -> str:
    return xml_attribute(text)[1:-1]


def _meta(labels: list[dict[str, Any]]) -> Iterator[str]:
    """The labels as CVAT exports them: a skeleton, then its points with the skeleton as their parent."""
    yield "  <meta>\n    <task>\n      <labels>\n"
    for label in labels:
        yield from _meta_label(label["name"], "skeleton", f"<svg>{_text(label['svg'])}</svg>")
        for point in label["sublabels"]:
            yield from _meta_label(point["name"], "points", f"<parent>{_text(label['name'])}</parent>")
    yield "      </labels>\n    </task>\n  </meta>\n"


def _meta_label(name: str, kind: str, more: str) -> Iterator[str]:
    yield f"        <label><name>{_text(name)}</name><type>{kind}</type><attributes></attributes>{more}</label>\n"


def _labels(results: Results) -> list[dict[str, Any]]:
    """The label constructor's JSON: a skeleton for each class."""
    drawing = _drawing(results)
    points = [{"name": name, "type": "points", "attributes": []} for name in results.keypoint_names]
    return [
        {"name": name, "type": "skeleton", "attributes": [], "sublabels": points, "svg": drawing}
        for name in results.class_names()
    ]


def _drawing(results: Results) -> str:
    """SVG of a new skeleton: lines between numbered nodes."""
    nodes = _template(results)
    lines = [
        f'<line x1="{nodes[a][0]}" y1="{nodes[a][1]}" x2="{nodes[b][0]}" y2="{nodes[b][1]}" data-type="edge" '
        f'data-node-from="{a + 1}" data-node-to="{b + 1}"></line>'
        for a, b in results.skeleton
    ]
    circles = [
        f'<circle r="1.5" cx="{x}" cy="{y}" data-type="element node" data-element-id="{i + 1}" '
        f'data-node-id="{i + 1}" data-label-name={xml_attribute(results.keypoint_names[i])}></circle>'
        for i, (x, y) in enumerate(nodes)
    ]
    return "".join(lines + circles)


def _template(results: Results) -> list[tuple[float, float]]:
    """Positions of a new skeleton's K points: those of the best person with all keypoints, else on a circle."""
    best, best_score = None, 0.0
    for entry in results.entries():
        for person in results.shown_people(entry):
            if person["score"] > best_score:
                points = results.keypoints_from_corner(entry, person)
                if all(point.is_shown for point in points):
                    best, best_score = points, person["score"]
    if best is None:
        count = len(results.keypoint_names)
        turns = [2 * math.pi * i / count for i in range(count)]
        positions = [(math.sin(turn), -math.cos(turn)) for turn in turns]
    else:
        positions = [(point.x, point.y) for point in best]
    return _fitted(positions)


def _fitted(positions: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Positions scaled to the drawing, in the middle of it."""
    xs, ys = zip(*positions)
    scale = (_DRAWING - 2 * _MARGIN) / (max(max(xs) - min(xs), max(ys) - min(ys)) or 1)
    x0, y0 = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    middle = _DRAWING / 2
    return [(round(middle + (x - x0) * scale, 2), round(middle + (y - y0) * scale, 2)) for x, y in positions]
