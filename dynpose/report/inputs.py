"""What a report is made of: the predictions, the annotation and the training of a run or of results files."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from dynpose.config import ConfigError, load_config
from dynpose.data import DatasetError, KeypointSchema, register_datasets_from_cfg, register_pose_dataset
from dynpose.data.coco_json import file_stamp
from dynpose.data.data_file import proposed_sigmas
from dynpose.data.dataset_dicts import load_dataset_dicts
from dynpose.evaluation.config_keys import evaluator_arguments, with_sigmas
from dynpose.evaluation.ground_truth import GroundTruth, read_ground_truth
from dynpose.evaluation.keypoint_subsets import (
    common_keypoints,
    detections_of_keypoints,
    ground_truth_of_keypoints,
)

from .curves import TrainingCurves, read_curves
from .results_files import read_results

__all__ = ["Annotation", "ReportInput", "is_run", "read_predictions", "read_run"]

_RESULTS = "coco_instances_results.json"
_PREDICTIONS = "predictions.json"
_MAX_DETS = 20
_TASKS = ("keypoints", "bbox", "pck")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The annotation of predictions from a file.

    Attributes:
        dataset: name of a registered data set, such as "keypoints_coco_2017_val"; None = ``json_file``.
        json_file: an annotation file in COCO's format.
        image_root: the folder that its file names are relative to; None = its own folder.
        category, keypoints, schema, protocol: see :func:`~dynpose.data.register_pose_dataset`.
        sigmas: K OKS sigmas; () = those of the data set.
        max_dets: predictions of a class in an image that count.
    """

    dataset: str | None = None
    json_file: str | None = None
    image_root: str | None = None
    category: str | Sequence[str] | None = None
    keypoints: Sequence[str] | None = None
    schema: str | None = None
    protocol: str = "coco"
    sigmas: Sequence[float] = ()
    max_dets: int = _MAX_DETS


@dataclasses.dataclass(frozen=True)
class ReportInput:
    """What a report is made of.

    Attributes:
        title: of the report.
        predictions_file: where the predictions come from.
        dataset: name of the data set.
        ground_truth: its annotation.
        detections: in COCO's results format.
        schema: K keypoints with the sigmas of the evaluation.
        class_names: of the classes.
        max_dets: predictions of a class in an image that count.
        records: image id -> dataset dict, for the images that are there.
        curves: of the training; None = the predictions are not of a run.
        remarks: what was skipped or adapted.
    """

    title: str
    predictions_file: str
    dataset: str
    ground_truth: GroundTruth
    detections: list[dict]
    schema: KeypointSchema
    class_names: list[str]
    max_dets: int
    records: dict
    curves: TrainingCurves | None
    remarks: list[str]

    @property
    def image_sizes(self) -> dict:
        """Image id -> (width, height), pixels, where the annotation gives them."""
        sizes = {image_id: size for image_id, (_, *size) in self.ground_truth.image_files.items()}
        return {image_id: size for image_id, size in sizes.items() if all(map(math.isfinite, size))}


def is_run(path: str | os.PathLike) -> bool:
    """Whether a path is the output folder of a training or an evaluation."""
    return Path(path, "config.yaml").is_file() and not Path(path, _PREDICTIONS).is_file()


def read_run(folder: str | os.PathLike, dataset: str | None = None) -> ReportInput:
    """Read the last evaluation of a run, and its metrics.

    Args:
        folder: ``OUTPUT_DIR`` of the run, with config.yaml, metrics.json and the evaluator's results in inference/.
        dataset: one of ``DATASETS.TEST``; None = the only one.

    Raises:
        ConfigError: config.yaml is invalid, or does not name the data set.
        DatasetError: there are no results, or the annotation cannot be used.
    """
    cfg = load_config(os.path.join(folder, "config.yaml"))
    tested = list(cfg.DATASETS.TEST)
    if dataset is None and len(tested) == 1:
        dataset = tested[0]
    if dataset is None or dataset not in tested:
        raise ConfigError(
            f"{folder}: {'DATASETS.TEST of its config is empty' if not tested else 'choose one of its data sets'} with "
            f"--dataset: {', '.join(tested) or 'none'}"
        )
    register_datasets_from_cfg(cfg)
    # the folder may have been moved since
    cfg.OUTPUT_DIR = os.fspath(folder)
    arguments = evaluator_arguments(cfg, dataset, _TASKS)
    results_file = os.path.join(arguments["output_dir"], _RESULTS)
    if not os.path.isfile(results_file):
        raise DatasetError(
            f"{results_file}: the run has no results of an evaluation; give the folder of those that dynpose "
            f"evaluate writes, or a file of predictions with --annotations"
        )
    return _read(
        title=os.path.basename(os.path.abspath(folder)),
        predictions_file=results_file,
        dataset=dataset,
        sigmas=arguments["sigmas"],
        max_dets=arguments.get("max_dets", _MAX_DETS),
        model_schema=arguments.get("model_schema"),
        curves=read_curves(os.path.join(folder, "metrics.json")),
    )


def read_predictions(path: str | os.PathLike, annotation: Annotation) -> ReportInput:
    """Read predictions and their annotation.

    Args:
        path: the output folder of ``dynpose predict``, or a file, see :func:`~.results_files.read_results`.
        annotation: of the images that were predicted.

    Raises:
        ConfigError: there is no annotation, or the data set is not registered.
        DatasetError: a file cannot be read or does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; give the folder of a run or of predict, or a results file")
    if path.is_dir():
        if not (path / _PREDICTIONS).is_file():
            raise DatasetError(
                f"{path}: it has neither config.yaml of a run nor {_PREDICTIONS} of dynpose predict; give one of these "
                f"folders, or a file of predictions"
            )
        path = path / _PREDICTIONS
    dataset = _registered(annotation)
    proposed = _sigmas_of_names(annotation, dataset)
    source = _read(
        title=path.parent.name if path.name == _PREDICTIONS and path.parent.name else path.name,
        predictions_file=str(path),
        dataset=dataset,
        sigmas=proposed or annotation.sigmas,
        max_dets=annotation.max_dets,
    )
    if proposed:
        source.remarks.append("The annotation has no OKS sigmas: COCO's are used, since all keypoints have its names.")
    return source


def _registered(annotation: Annotation) -> str:
    """The name of the data set, which is registered if it is a file."""
    if bool(annotation.dataset) == bool(annotation.json_file):
        raise ConfigError("give the annotation of the predicted images: either --annotations FILE or --dataset NAME")
    if annotation.dataset:
        if annotation.dataset not in DatasetCatalog:
            raise ConfigError(
                f"data set {annotation.dataset!r} is not registered; give its annotation file with --annotations"
            )
        return annotation.dataset
    json_file = os.path.expanduser(str(annotation.json_file))
    root = annotation.image_root or os.path.dirname(os.path.abspath(json_file))
    options = dataclasses.asdict(annotation)
    options = {key: options[key] for key in ("category", "keypoints", "schema", "protocol")}
    # a name for each way to read the file, and for each of its contents: the keypoints of a name are read once
    name = f"report of {os.path.abspath(json_file)} {file_stamp(json_file)} {sorted(options.items(), key=str)} {root}"
    register_pose_dataset(name, json_file, root, **options)
    return name


def _sigmas_of_names(annotation: Annotation, dataset: str) -> Sequence[float]:
    """For a file without sigmas those that ``dynpose train --data`` and ``dynpose evaluate`` use; () = none."""
    if annotation.sigmas or annotation.dataset:
        return ()
    schema = KeypointSchema.from_metadata(MetadataCatalog.get(dataset))
    return (proposed_sigmas(schema.names) or ()) if schema.sigmas_are_default else ()


def _read(
    *,
    title: str,
    predictions_file: str,
    dataset: str,
    sigmas: Sequence[float],
    max_dets: int,
    model_schema: KeypointSchema | None = None,
    curves: TrainingCurves | None = None,
) -> ReportInput:
    metadata = MetadataCatalog.get(dataset)
    schema = with_sigmas(KeypointSchema.from_metadata(metadata), sigmas)
    ground_truth = read_ground_truth(dataset, schema.num_keypoints)
    if ground_truth.annotations is None:
        raise DatasetError(f"{ground_truth.source}: it has no annotations to compare the predictions with; add them")
    results = read_results(
        predictions_file,
        ground_truth,
        schema.names,
        class_names=metadata.get("thing_classes") or [],
        class_of=metadata.get("thing_dataset_id_to_contiguous_id") or {},
    )
    records, remarks = _image_records(dataset, ground_truth)
    detections = results.detections
    missing = set(results.missing_keypoints)
    if model_schema is not None:
        matched = common_keypoints(schema, model_schema, dataset)
        missing |= {i for i, index in enumerate(matched) if index is None}
    if missing:
        kept = [i for i in range(schema.num_keypoints) if i not in missing]
        ground_truth = ground_truth_of_keypoints(ground_truth, kept)
        detections = detections_of_keypoints(detections, kept)
        schema = _subset(schema, kept)
    return ReportInput(
        title=title,
        predictions_file=predictions_file,
        dataset=os.path.basename(ground_truth.source) if dataset.startswith("report of ") else dataset,
        ground_truth=ground_truth,
        detections=detections,
        schema=schema,
        class_names=list(metadata.get("thing_classes") or []),
        max_dets=max_dets,
        records=records,
        curves=curves,
        remarks=[*results.remarks, *_default_sigmas(schema), *remarks],
    )


def _default_sigmas(schema: KeypointSchema) -> list[str]:
    if not schema.sigmas_are_default:
        return []
    return [
        f"The data set has no OKS sigmas: {schema.sigmas[0]:g} is used for each keypoint, which is strict. Compare AP "
        f"on this data set only, or give measured ones (--sigmas)."
    ]


def _image_records(dataset: str, ground_truth: GroundTruth) -> tuple[dict, list[str]]:
    """The images that are there, and a remark on those that are not."""
    dicts = load_dataset_dicts(dataset, on_fault=lambda fault: None, on_remarks=lambda remarks: None)
    records = {record["image_id"]: record for record in dicts}
    missing = len(ground_truth.image_ids) - len(records)
    if not missing:
        return records, []
    which = "No image was" if not records else f"{missing} of {len(ground_truth.image_ids)} images were not"
    return records, [f"{which} found: the report shows no pictures of them. Give their folder with --image-root."]


def _subset(schema: KeypointSchema, kept: list[int]) -> KeypointSchema:
    """The schema of some of the keypoints."""
    names = {schema.names[i] for i in kept}
    number = {index: i for i, index in enumerate(kept)}
    return KeypointSchema(
        names=tuple(schema.names[i] for i in kept),
        flip_pairs=tuple(pair for pair in schema.flip_pairs if set(pair) <= names),
        skeleton=tuple((number[a], number[b]) for a, b in schema.skeleton if a in number and b in number),
        sigmas=tuple(schema.sigmas[i] for i in kept),
        sigmas_are_default=schema.sigmas_are_default,
    )
