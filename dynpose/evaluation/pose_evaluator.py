"""The evaluator for a trainer or ``inference_on_dataset``: OKS with COCO's metrics, for any keypoints."""

import itertools
import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from dynpose.data import DatasetError, KeypointSchema
from dynpose.data.known_schemas import keypoint_groups

from .coco_metrics import BACKENDS, METRICS, category_ap, evaluate_detections, nan_reasons, summarize
from .config_keys import evaluator_arguments, with_sigmas
from .ground_truth import GroundTruth, read_ground_truth
from .keypoint_subsets import (
    common_keypoints,
    detections_of_keypoints,
    detections_of_part,
    ground_truth_of_keypoints,
)
from .pck import evaluate_pck, pck_metric_names
from .predictions import ImagePredictions, collect_predictions, to_coco_results
from .reports import first_few, log_nan, log_pck, log_sigmas, warn_of_crowded_images

__all__ = ["PoseEvaluator"]

logger = logging.getLogger(__name__)

_TASKS = ("keypoints", "bbox", "pck")
_PART_METRICS = ("AP", "AR")
_CROWD_GROUPS = ("easy", "medium", "hard")


class PoseEvaluator(DatasetEvaluator):
    """COCO's keypoint AP and AR, and box AP, of a data set with any keypoints.

    detectron2's ``COCOEvaluator`` uses COCO's 17 OKS sigmas by default, and fails for another number of keypoints or
    annotations without keypoints. This one uses and logs the sigmas of the data set's schema, and fills in missing
    fields of an annotation file (see :func:`read_ground_truth`).

    The metrics are those that pycocotools computes from the written results file, except for ``max_dets``. With
    ``keypoint_protocol`` "crowdpose" in the data set's metadata, they are those of CrowdPose's official tool. With
    whole-body keypoints, each part has a separate AP and AR. docs/evaluation.md defines the metrics.

    Args:
        dataset_name (str): a registered data set with keypoints in its metadata.
        tasks (Sequence[str]): of "keypoints", "bbox" and "pck" (PCK, AUC and NME of each keypoint; see
            :mod:`dynpose.evaluation.pck`); None = keypoints, and boxes if the predictions have them.
        sigmas (Sequence[float]): K OKS sigmas, COCO's ``k_i / 2``; () = those of the data set's schema.
        output_dir (str): folder for ``coco_instances_results.json``; None = it is not written.
        distributed (bool): gather the predictions of all processes in the first; False = each evaluates its part.
        max_dets (int): number of people per image that count for keypoints, highest scores first. COCO's is 20,
            independent of ``cfg.TEST.DETECTIONS_PER_IMAGE``.
        max_dets_boxes (int): the same for boxes; COCO's is 100.
        parts (dict[str, Sequence[int]]): name -> 0-based keypoints that are also evaluated separately; None = those of
            a known whole-body schema, {} = none.
        model_schema (KeypointSchema): the keypoints of the predictions if they differ from the data set's; matched by
            name. Keypoints that the model lacks count as not labelled. None = the data set's.
        backend (str): "faster" (faster-coco-eval) or "pycocotools"; their metrics are the same.

    Raises:
        DatasetError: the data set has no keypoints, or none of the model's, its annotation cannot be used, or the
            sigmas are not K positive numbers.
        ValueError: a task or backend is unknown, a limit is below 1, or a part is not a list of keypoints.

    Example::

        >>> evaluator = PoseEvaluator("keypoints_coco_2017_val", output_dir="output/inference")
        >>> inference_on_dataset(model, data_loader, evaluator)["keypoints"]["AP"]
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        tasks: Sequence[str] | None = None,
        sigmas: Sequence[float] = (),
        output_dir: str | None = None,
        distributed: bool = True,
        max_dets: int = 20,
        max_dets_boxes: int = 100,
        parts: Mapping[str, Sequence[int]] | None = None,
        model_schema: KeypointSchema | None = None,
        backend: str = "faster",
    ):
        unknown = sorted(set(tasks or ()) - set(_TASKS))
        if unknown:
            raise ValueError(f"unknown tasks {', '.join(map(repr, unknown))}: known are {', '.join(_TASKS)}")
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: known are {', '.join(BACKENDS)}")
        if min(max_dets, max_dets_boxes) < 1:
            raise ValueError(f"max_dets and max_dets_boxes must be at least 1, got {max_dets} and {max_dets_boxes}")
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._schema = _schema_with_sigmas(self._metadata, sigmas)
        self._tasks = None if tasks is None else tuple(dict.fromkeys(tasks))
        self._output_dir = output_dir
        self._distributed = distributed
        self._max_dets = {"bbox": max_dets_boxes, "keypoints": max_dets}
        self._backend = backend
        self._model_schema = model_schema
        self._matched = None if model_schema is None else common_keypoints(self._schema, model_schema, dataset_name)
        # The data set's keypoints that the predictions have: 0-based indices, names and sigmas
        matched: Iterable[int | None] = range(self._schema.num_keypoints) if self._matched is None else self._matched
        self._evaluated = [i for i, index in enumerate(matched) if index is not None]
        self._names = [self._schema.names[i] for i in self._evaluated]
        self._sigmas = [self._schema.sigmas[i] for i in self._evaluated]
        self._parts = _check_parts(keypoint_groups(self._schema.names) if parts is None else parts, self._schema)
        # Read now, so that a fault in the file is reported before the model runs over all images
        self._ground_truth: GroundTruth | None = None
        if not distributed or comm.is_main_process():
            self._ground_truth = read_ground_truth(dataset_name, self._schema.num_keypoints)
            self._restrict_to_model_keypoints()
            warn_of_crowded_images(
                dataset_name, self._ground_truth, self._max_dets, self._tasks or ("keypoints", "bbox")
            )
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str, **kwargs: Any) -> "PoseEvaluator":
        """An evaluator configured by ``cfg.TEST``, writing to ``<cfg.OUTPUT_DIR>/inference``.

        The keys are ``KEYPOINT_OKS_SIGMAS``, ``TASKS``, ``MAX_DETS`` and ``MAP_KEYPOINTS``.

        Args:
            cfg (CfgNode): a detectron2 config, with or without dynpose's keys. With several ``DATASETS.TEST``, each has
                a subfolder named after it.
            dataset_name (str): see the class.
            kwargs: arguments of the class, which take precedence.

        Raises:
            ConfigError: a value is invalid or does not fit the data set.
            DatasetError: see the class.
        """
        return cls(dataset_name, **{**evaluator_arguments(cfg, dataset_name, _TASKS), **kwargs})

    @property
    def has_annotation(self) -> bool:
        """Whether there is ground truth; valid in the first process, or if the evaluator is not distributed."""
        return self._ground_truth is not None and self._ground_truth.annotations is not None

    def metric_names(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str]]: task -> the metrics that :meth:`evaluate` returns if predictions have boxes."""
        class_names = self._metadata.get("thing_classes", ())
        per_class = [f"AP-{name}" for name in class_names] if len(class_names) > 1 else []
        own = [f"{metric}_{part}" for part in self._parts for metric in _PART_METRICS]
        if self._iou_type == "keypoints_crowd":
            own += [f"AP{group}" for group in _CROWD_GROUPS]
        pck = pck_metric_names(self._names)
        names = {
            "keypoints": (*METRICS[self._iou_type], *own, *per_class),
            "bbox": (*METRICS["bbox"], *per_class),
            "pck": (*pck, *(f"{metric}-{name}" for metric in pck for name in self._names)),
        }
        return {task: names[task] for task in self._tasks or ("keypoints", "bbox")}

    def reset(self) -> None:
        """Clear all predictions."""
        self._predictions: list[ImagePredictions] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Collect the predictions of a batch of images.

        Args:
            inputs (list[dict]): with ``image_id``.
            outputs (list[dict]): with ``instances``: ``scores``, ``pred_classes``, ``pred_keypoints`` (N, K, 3; x and y
                in continuous pixels of the original image, and the confidence, which is written to the results file
                unchanged) and optionally ``pred_boxes``.

        Raises:
            DatasetError: the predictions have another number of keypoints than the data set.
        """
        for image, output in zip(inputs, outputs):
            self._predictions.append(
                collect_predictions(
                    image["image_id"],
                    output["instances"],
                    (self._model_schema or self._schema).num_keypoints,
                    self._dataset_name,
                    self._matched,
                )
            )

    def evaluate(self, img_ids: Sequence[int | str] | None = None) -> OrderedDict[str, dict[str, float]]:
        """Write the results file and compute the metrics.

        Args:
            img_ids (Sequence): ids of the images to evaluate; None = all of the data set. An image without predictions
                counts as having no detections.

        Returns:
            OrderedDict[str, dict[str, float]]: task -> metric -> 0 to 100, NaN without matching ground truth.
            "keypoints" has AP, AP50, AP75, APm, APl and the same of AR, or with CrowdPose's protocol AP, AP50, AP75,
            the same of AR, APeasy, APmedium and APhard, and ``AP_<part>`` and ``AR_<part>`` of each part; "bbox" has
            AP, AP50, AP75, APs, APm and APl; both have ``AP-<class>`` if there is more than one class. "pck" has PCK,
            AUC and NME (percent), and each of them per keypoint, such as ``NME-nose``. Empty in all processes but the
            first, and if the data set has no annotation.

        Raises:
            DatasetError: predictions are of images or classes that the data set does not have.
            ValueError: "bbox" is requested, but some predictions have no boxes.
        """
        predictions, ground_truth = self._gather(), self._ground_truth
        if predictions is None or ground_truth is None:
            return OrderedDict()
        self._check(predictions, everything=img_ids is None)
        detections = []
        for prediction in predictions:
            detections += to_coco_results(prediction, ground_truth.category_ids, self._dataset_name)
        self._write(detections)
        if ground_truth.annotations is None:
            logger.info("%s has no annotation: there is nothing to evaluate.", ground_truth.source)
            return OrderedDict()
        if self._matched is not None:
            detections = detections_of_keypoints(detections, self._evaluated)
        results = OrderedDict()
        for task in self._tasks or _tasks_of(predictions):
            evaluate = self._evaluate_pck if task == "pck" else self._evaluate_task
            results[task] = evaluate(task, detections, img_ids)
        return results

    @property
    def _iou_type(self):
        return "keypoints_crowd" if self._metadata.get("keypoint_protocol") == "crowdpose" else "keypoints"

    def _restrict_to_model_keypoints(self):
        """Restrict the ground truth to the keypoints that the model has."""
        if self._matched is None:
            return
        lacking = [name for name, index in zip(self._schema.names, self._matched) if index is None]
        logger.info(
            "%s: evaluated on the %d of its %d keypoints that the model has by name%s",
            self._dataset_name,
            len(self._evaluated),
            self._schema.num_keypoints,
            f". These count as not labelled: {', '.join(lacking)}" if lacking else "",
        )
        if self._ground_truth.annotations is not None:
            self._ground_truth = ground_truth_of_keypoints(self._ground_truth, self._evaluated)

    def _gather(self):
        """The predictions of all processes, one per image; None in all processes but the first."""
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return None
            predictions = itertools.chain(*gathered)
        # Samplers that give each process the same number of images may repeat some
        by_image = {}
        for prediction in predictions:
            by_image.setdefault(prediction.image_id, prediction)
        return list(by_image.values())

    def _check(self, predictions, *, everything):
        ground_truth = self._ground_truth
        for prediction in predictions:
            if prediction.image_id not in ground_truth.image_numbers:
                raise DatasetError(
                    f"{ground_truth.source} has no image {prediction.image_id!r}, of which there are predictions; run "
                    f"the model on data set {self._dataset_name!r}, which the evaluator is for"
                )
        if everything and len(predictions) < len(ground_truth.image_ids):
            logger.warning(
                "%s: %d of %d images have not been predicted: all people in them count as missed.",
                self._dataset_name,
                len(ground_truth.image_ids) - len(predictions),
                len(ground_truth.image_ids),
            )
        if not any(len(prediction.scores) for prediction in predictions):
            logger.warning("%s: no person is predicted in any image.", self._dataset_name)
        dropped = [prediction for prediction in predictions if prediction.num_dropped]
        if dropped:
            logger.warning(
                "%s: %d predictions with a NaN or infinite score or coordinate were skipped, in %d images: %s. The "
                "model may have diverged.",
                self._dataset_name,
                sum(prediction.num_dropped for prediction in dropped),
                len(dropped),
                first_few([prediction.image_id for prediction in dropped]),
            )

    def _write(self, detections):
        if self._output_dir is None:
            return
        PathManager.mkdirs(self._output_dir)
        path = os.path.join(self._output_dir, "coco_instances_results.json")
        with PathManager.open(path, "w") as f:
            f.write(json.dumps(detections))
        logger.info("%s: %d predictions written to %s", self._dataset_name, len(detections), path)

    def _evaluate_task(self, task, detections, img_ids):
        iou_type = task
        if task == "keypoints":
            log_sigmas(self._dataset_name, self._names, self._sigmas, are_default=self._schema.sigmas_are_default)
            iou_type = self._iou_type
        accumulated, params = self._accumulate(iou_type, detections, img_ids)
        metrics = summarize(accumulated, params, iou_type)
        reasons = nan_reasons(metrics, iou_type)
        if iou_type == "keypoints_crowd":
            metrics.update(self._ap_of_crowd_groups(iou_type, detections, img_ids, reasons))
        logger.info("%s: evaluation results for %s:\n%s", self._dataset_name, task, create_small_table(metrics))
        if task == "keypoints" and self._parts:
            metrics.update(self._metrics_of_parts(iou_type, detections, img_ids, reasons))
        metrics.update(self._ap_of_classes(task, accumulated, params, reasons))
        log_nan(self._dataset_name, task, metrics, reasons)
        return metrics

    def _ap_of_classes(self, task, accumulated, params, reasons):
        class_names = self._metadata.get("thing_classes", ())
        if len(class_names) < 2:
            return {}
        ap_of = category_ap(accumulated, params)
        per_class = {
            f"AP-{name}": ap_of[category_id] for name, category_id in zip(class_names, self._ground_truth.category_ids)
        }
        table = tabulate(per_class.items(), headers=("class", "AP"), tablefmt="pipe", floatfmt=".3f")
        logger.info("%s: %s AP per class:\n%s", self._dataset_name, task, table)
        who = "no person" if task == "bbox" else "no person with labelled keypoints"
        reasons[f"the ground truth has {who} of the class"] = list(per_class)
        return per_class

    def _ap_of_crowd_groups(self, iou_type, detections, img_ids, reasons):
        """AP of each group's images, evaluated separately."""
        groups = self._ground_truth.image_groups
        logger.info(
            "%s: evaluated with CrowdPose's protocol, on %s images",
            self._dataset_name,
            ", ".join(f"{len(members)} {group}" for group, members in groups.items()),
        )
        metrics = {}
        for group, members in groups.items():
            chosen = set(members) if img_ids is None else set(members).intersection(img_ids)
            here = [detection for detection in detections if detection["image_id"] in chosen]
            metrics[f"AP{group}"] = summarize(*self._accumulate(iou_type, here, chosen), iou_type)["AP"]
            lack = "no person with labelled keypoints is in the" if chosen else "there are no"
            reasons[f"{lack} {group} images"] = [f"AP{group}"]
        return metrics

    def _metrics_of_parts(self, iou_type, detections, img_ids, reasons):
        """AP and AR of each part of the body, as in COCO-WholeBody."""
        metrics, rows = {}, []
        for part, indices in self._parts.items():
            # in the numbering of the evaluated keypoints
            indices = [self._evaluated.index(i) for i in indices if i in self._evaluated]
            of_part = dict.fromkeys(METRICS[iou_type], math.nan)
            if indices:
                accumulated = self._accumulate(
                    iou_type,
                    detections_of_part(detections, indices),
                    img_ids,
                    ground_truth=ground_truth_of_keypoints(self._ground_truth, indices),
                    sigmas=[self._sigmas[i] for i in indices],
                )
                of_part = summarize(*accumulated, iou_type)
            rows.append((part, *of_part.values()))
            own = {f"{metric}_{part}": of_part[metric] for metric in _PART_METRICS}
            lack = "no person has a labelled keypoint of" if indices else "the model has no keypoint of"
            reasons[f"{lack} {part}"] = list(own)
            metrics.update(own)
        table = tabulate(rows, headers=("part", *METRICS[iou_type]), tablefmt="pipe", floatfmt=".3f")
        logger.info("%s: evaluation results for parts of the body:\n%s", self._dataset_name, table)
        return metrics

    def _evaluate_pck(self, task, detections, img_ids):
        results = evaluate_pck(
            self._ground_truth,
            detections,
            names=self._names,
            sigmas=self._sigmas,
            max_dets=self._max_dets["keypoints"],
            image_ids=img_ids,
        )
        log_pck(self._dataset_name, results, self._names)
        metrics = {**results.metrics, **results.of_keypoints(self._names)}
        reasons = {"no labelled or detected person has the required keypoints": list(metrics)}
        log_nan(self._dataset_name, task, metrics, reasons)
        return metrics

    def _accumulate(self, iou_type, detections, img_ids, *, ground_truth=None, sigmas=None):
        without_box = sum("bbox" not in detection for detection in detections)
        if iou_type == "bbox" and without_box:
            raise ValueError(
                f"box AP is requested, but {without_box} of {len(detections)} predictions have no pred_boxes; evaluate "
                f'with tasks=("keypoints",)'
            )
        return evaluate_detections(
            ground_truth or self._ground_truth,
            detections,
            iou_type=iou_type,
            sigmas=sigmas or self._sigmas,
            max_dets=self._max_dets["bbox" if iou_type == "bbox" else "keypoints"],
            backend=self._backend,
            image_ids=img_ids,
        )


def _schema_with_sigmas(metadata, sigmas):
    schema = KeypointSchema.from_metadata(metadata)
    try:
        return with_sigmas(schema, sigmas)
    except DatasetError as error:
        raise DatasetError(f"data set {metadata.name!r}: {error} (they are the evaluator's argument sigmas)") from None


def _check_parts(parts, schema):
    for part, indices in parts.items():
        if not len(indices) or not set(indices) <= set(range(schema.num_keypoints)):
            raise ValueError(
                f"part {part!r} is {list(indices)}; give 0-based numbers of the data set's {schema.num_keypoints} "
                f"keypoints"
            )
    return parts


def _tasks_of(predictions):
    # Instances of an image without detections may have no fields
    have_boxes = [prediction.boxes is not None for prediction in predictions if len(prediction.scores)]
    have_boxes = have_boxes or [prediction.boxes is not None for prediction in predictions]
    return ("keypoints", "bbox") if have_boxes and all(have_boxes) else ("keypoints",)
