"""The report of an analysis: one HTML page without outside requests, and the same numbers as JSON."""

from __future__ import annotations

import json
import math
import os
from importlib import resources
from typing import Any

from dynpose.data import DatasetError
from dynpose.evaluation.analysis import analyse_predictions
from dynpose.utils.atomic import atomic_open
from dynpose.version import __version__

from . import figures
from .inputs import ReportInput
from .pictures import Picture, draw_pair

__all__ = ["FORMAT", "analyse", "render", "write_report"]

FORMAT = {"format": "dynpose report", "version": 1}
"""The first keys of report.json; the version changes when a key changes its meaning."""

_HTML, _JSON = "report.html", "report.json"
_ERROR_NAMES = {
    "miss": "miss",
    "swap": "swap",
    "inversion": "inversion",
    "jitter": "jitter",
    "score": "scores",
    "false_positives": "false positives",
    "missed_people": "missed people",
}
_ERROR_MEANINGS = {
    "miss": "keypoints with a similarity below 0.5 to every annotated keypoint of their kind",
    "swap": "keypoints on another person",
    "inversion": "keypoints at their left/right counterpart of the same person",
    "jitter": "keypoints near their place (similarity 0.5 to 0.85), but beyond human error",
    "score": "scores that rank worse predictions above better ones",
    "false_positives": "predictions without a person",
    "missed_people": "people without a prediction",
}


def write_report(source: ReportInput, folder: str | os.PathLike, *, num_worst: int = 30) -> dict:
    """Analyse, and write ``report.html`` and ``report.json``, each as a whole or not at all.

    Args:
        source: predictions, annotation and training.
        folder: made if it does not exist.
        num_worst: number of worst images.

    Returns:
        The content of report.json, NaN as None.

    Raises:
        OSError: a file cannot be written.
    """
    report = analyse(source, num_worst=num_worst)
    os.makedirs(folder, exist_ok=True)
    with atomic_open(os.path.join(folder, _JSON)) as file:
        json.dump(report, file, allow_nan=False, indent=1)
        file.write("\n")
    with atomic_open(os.path.join(folder, _HTML), "wb") as file:
        # names of files may have bytes that are no text
        file.write(render(report, source).encode("utf-8", "backslashreplace"))
    return report


def analyse(source: ReportInput, *, num_worst: int = 30) -> dict:
    """The content of report.json; docs/report.md describes the keys.

    Args:
        source: predictions, annotation and training.
        num_worst: number of worst images.

    Returns:
        dict: plain numbers, NaN as None.
    """
    analysis = analyse_predictions(
        source.ground_truth,
        source.detections,
        source.schema,
        max_dets=source.max_dets,
        image_sizes=source.image_sizes,
        num_worst=num_worst,
    )
    classes = analysis.pop("ap_of_classes")
    names = dict(zip(map(str, source.ground_truth.category_ids), source.class_names))
    files = source.ground_truth.image_files
    for row in analysis["worst_images"]["images"]:
        row["file_name"] = files.get(row["image"], (None,))[0]
    return _without_nan(
        {
            **FORMAT,
            "dynpose": __version__,
            "title": source.title,
            "source": {
                "predictions": source.predictions_file,
                "annotations": source.ground_truth.source,
                "dataset": source.dataset,
                "predictions_read": len(source.detections),
                "sigmas": list(source.schema.sigmas),
                "sigmas_are_default": source.schema.sigmas_are_default,
                "remarks": source.remarks,
            },
            "verdict": analysis.pop("verdict"),
            "metrics": analysis.pop("metrics"),
            "ap_of_classes": {names.get(key, key): value for key, value in classes.items()},
            "training": None if source.curves is None else source.curves._asdict(),
            **analysis,
        }
    )


def render(report: dict, source: ReportInput) -> str:
    """The page.

    Args:
        report: of :func:`analyse`.
        source: that it is made from; its images are read for the pictures.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=_format_number, signed=_format_signed)
    return environment.get_template("template.html").render(
        report=report,
        charts=_charts(report),
        pictures=_pictures(report, source),
        error_names=_ERROR_NAMES,
        error_meanings=_ERROR_MEANINGS,
    )


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _charts(report: dict) -> dict[str, str]:
    """The charts by name, without those that have no values."""
    from markupsafe import Markup

    precision_recall = report["precision_recall"]
    curves = {
        f"OKS {curve['oks']:.2f} (AP {_format_number(curve['ap'])})": (
            precision_recall["recall"],
            _with_nan(curve["precision"]),
        )
        for curve in precision_recall["curves"]
        if curve["ap"] is not None
    }
    charts = {}
    if curves:
        charts["precision"] = figures.lines(
            curves, "precision", x_label="recall", y_label="precision", x_limits=(0, 1), y_limits=(0, 1.02)
        )
        errors = report["errors"]
        steps = {_ERROR_NAMES[each["error"]]: each["ap_cumulative"] for each in errors["corrections"]}
        # without predictions nobody is left when the missed people are ignored
        steps = {name: value for name, value in steps.items() if value is not None}
        charts["errors"] = figures.waterfall(errors["ap"], steps, "errors", x_label="AP, each error corrected in turn")
    if any(each["predictions"] for each in report["calibration"]["bins"]):
        charts["calibration"] = figures.calibration_chart(report["calibration"]["bins"], "calibration")
    for name, label in (("sizes", "square root of the area, pixels"), ("people_per_image", "people in an image")):
        values = {_range(each, whole=name != "sizes"): each["number"] for each in report["data"][name]}
        unit = "people" if name == "sizes" else "images"
        charts[name] = figures.bars(values, name, x_label=label, y_label=unit)
    training = report["training"]
    if training is not None and training["losses"]:
        losses = {name: _points(curve) for name, curve in list(training["losses"].items())[:6]}
        charts["losses"] = figures.lines(losses, "losses", x_label="iteration", y_label="loss", log=True)
    if training is not None and training["ap"]:
        ap = {name: _points(curve) for name, curve in list(training["ap"].items())[:6]}
        charts["ap"] = figures.lines(ap, "ap", x_label="iteration", y_label="AP", marked=True)
    return {name: Markup(chart) for name, chart in charts.items()}


def _points(curve: list) -> tuple[list[float], list[float]]:
    return [iteration for iteration, _ in curve], _with_nan([value for _, value in curve])


def _range(each: dict, *, whole: bool) -> str:
    if each["to"] is None:
        return f"{each['from']}+"
    if whole and each["to"] == each["from"] + 1:
        return str(each["from"])
    return f"{each['from']}\N{EN DASH}{each['to'] - whole}"


def _pictures(report: dict, source: ReportInput) -> dict[str, Picture | str]:
    """Image id as text -> its picture, or the reason why there is none."""
    threshold = report["worst_images"]["score_threshold"]
    wanted = {row["image"] for row in report["worst_images"]["images"]}
    annotations: dict = {image_id: [] for image_id in wanted}
    for person in source.ground_truth.annotations or ():
        image_id = source.ground_truth.image_ids[person["image_id"] - 1]
        if image_id in wanted and not person["iscrowd"]:
            annotations[image_id].append(person)
    detections: dict = {image_id: [] for image_id in wanted}
    for detection in source.detections:
        if detection["image_id"] in wanted and (threshold is None or detection["score"] >= threshold):
            detections[detection["image_id"]].append(detection)
    pictures: dict[str, Picture | str] = {}
    for image_id in wanted:
        record = source.records.get(image_id)
        if record is None:
            pictures[str(image_id)] = "the image was not found"
            continue
        try:
            pictures[str(image_id)] = draw_pair(record, annotations[image_id], detections[image_id], source.schema)
        except DatasetError as error:
            pictures[str(image_id)] = str(error) if error.fault is None else error.fault.reason
    return pictures


def _without_nan(value: Any) -> Any:
    """Plain JSON: NaN and infinite numbers as None."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(values: list) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _format_number(value: float | None, digits: int = 1) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def _format_signed(value: float | None, digits: int = 1) -> str:
    return "\N{EN DASH}" if value is None else f"{value:+.{digits}f}"
