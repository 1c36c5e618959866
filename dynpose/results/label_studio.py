"""Label Studio's pre-annotations: predictions that it shows for correction (https://labelstud.io/guide/predictions).

A person is a rectangle, and its keypoints name it in ``parentID``, which puts them inside it in the outliner. Numbers
are percents of the image's width and height from its corner.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from .results import Results, Tally, clipped_box, frame_name, text_file, write_json_list, xml_attribute

__all__ = ["write"]

_FOLDER = "label_studio"
# Diameter of a keypoint on Label Studio's screen, percent of the image's width
_POINT_WIDTH = 0.5
# Label Studio serves a folder of its machine at this address
_LOCAL_FILES = "/data/local-files/?d="
_COLORS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def write(results: Results, folder: Path) -> list[str]:
    """Write ``label_studio/tasks.json`` and ``label_studio/config.xml``, the labelling interface of the project.

    A task is an image with the people whose score reaches the threshold; keypoints of low confidence and those outside
    the image are omitted. The address of an image is that of Label Studio's local storage.

    Args:
        results (Results): the predictions.
        folder (Path): an existing folder.

    Returns:
        list[str]: lines for the user.
    """
    target = folder / _FOLDER
    target.mkdir(exist_ok=True)
    with text_file(target / "config.xml") as file:
        file.write(_interface(results))
    frames = Tally("frames of videos have no image file and are omitted")
    outside = Tally("people whose box is outside the image are omitted")
    with text_file(target / "tasks.json") as file:
        number = write_json_list(file, _tasks(results, frames, outside))
    return [
        f"{target / 'tasks.json'}: {number} tasks; config.xml is the labelling interface",
        *frames.lines(),
        *outside.lines(),
    ]


def _tasks(results: Results, frames: Tally, outside: Tally):
    for number, entry in enumerate(results.entries()):
        if "frame" in entry:
            frames.add(frame_name(entry))
            continue
        people = []
        for index, person in enumerate(results.shown_people(entry)):
            x0, y0, x1, y1 = clipped_box(entry, person)
            if x0 < x1 and y0 < y1:
                people.append((f"{number}_{index}", person))
            else:
                outside.add(entry["file_name"])
        scores = [person["score"] for _, person in people]
        prediction = {
            "model_version": "dynpose",
            "score": min(scores, default=0.0),
            "result": [region for name, person in people for region in _regions(results, entry, name, person)],
        }
        address = _LOCAL_FILES + quote(entry["file_name"].encode("utf-8", "surrogateescape"))
        yield {"data": {"image": address}, "predictions": [prediction]}


def _regions(results: Results, entry: dict[str, Any], name: str, person: dict[str, Any]) -> list[dict[str, Any]]:
    """A rectangle and its keypoints."""
    width, height = entry["width"], entry["height"]
    common = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    x0, y0, x1, y1 = clipped_box(entry, person)
    box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    value = {key: _percent(number, width if key in ("x", "width") else height) for key, number in box.items()}
    regions = [
        {
            **common,
            "id": name,
            "type": "rectanglelabels",
            "from_name": "person",
            "score": person["score"],
            "value": {**value, "rotation": 0, "rectanglelabels": [results.class_name(person["category"])]},
            **({"meta": {"text": [f"track {person['track_id']}"]}} if "track_id" in person else {}),
        }
    ]
    points = results.keypoints_from_corner(entry, person)
    for index, (keypoint, point) in enumerate(zip(results.keypoint_names, points)):
        if point.is_shown:
            place = {"x": _percent(point.x, width), "y": _percent(point.y, height), "width": _POINT_WIDTH}
            regions.append(
                {
                    **common,
                    "id": f"{name}_{index}",
                    "parentID": name,
                    "type": "keypointlabels",
                    "from_name": "keypoint",
                    "score": person["keypoints"][index][2],
                    "value": {**place, "keypointlabels": [keypoint]},
                }
            )
    return regions


def _percent(value: float, of: int) -> float:
    return round(100 * value / of, 6)


def _interface(results: Results) -> str:
    """The XML of the labelling interface, with a label for each class and each keypoint."""
    return "\n".join(
        (
            "<View>",
            *_label_tags("RectangleLabels", "person", results.class_names()),
            *_label_tags("KeyPointLabels", "keypoint", results.keypoint_names),
            '  <Image name="image" value="$image" zoom="true"/>',
            "</View>\n",
        )
    )


def _label_tags(tag: str, name: str, labels: tuple[str, ...]) -> list[str]:
    colors = [_COLORS[index % len(_COLORS)] for index in range(len(labels))]
    return [
        f'  <{tag} name="{name}" toName="image">',
        *(f'    <Label value={xml_attribute(label)} background="{color}"/>' for label, color in zip(labels, colors)),
        f"  </{tag}>",
    ]
