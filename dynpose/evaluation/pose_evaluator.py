"""The evaluator that a trainer or ``inference_on_dataset`` is given: OKS with COCO's metrics, for any keypoints."""

import dataclasses
import itertools
import json
import logging
import os
from collections import OrderedDict

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from dynpose.data import DatasetError, KeypointSchema

from .coco_metrics import BACKENDS, category_ap, evaluate_detections, summarize
from .ground_truth import read_ground_truth
from .predictions import collect_predictions, to_coco_results

__all__ = ["PoseEvaluator"]

logger = logging.getLogger(__name__)

_TASKS = ("keypoints", "bbox")


class PoseEvaluator(DatasetEvaluator):
    """COCO's keypoint AP and AR, and box AP, of a data set with any keypoints.

    detectron2's ``COCOEvaluator`` takes COCO's 17 OKS sigmas unless it is told others, and fails where a data set has
    another number of keypoints or an annotation without them. This one takes the sigmas of the data set's schema, says
    which they are, and mends what an annotation file lacks (see :func:`read_ground_truth`).

    The metrics are those that pycocotools computes from the results file that is written, ``max_dets`` aside. With
    ``keypoint_protocol`` "crowdpose" in the metadata of the data set, they are those of CrowdPose's own tool.

    Args:
        dataset_name (str): a registered data set with keypoints in its metadata.
        tasks (Sequence[str]): of "keypoints" and "bbox"; None = keypoints, and boxes if the predictions have them.
        sigmas (Sequence[float]): K OKS sigmas, COCO's ``k_i / 2``; () = those of the data set's schema.
        output_dir (str): folder for ``coco_instances_results.json``; None = it is not written.
        distributed (bool): gather the predictions of all processes in the first; False = each evaluates its own.
        max_dets (int): people of an image that count for keypoints, highest scores first. COCO's is 20, whatever
            ``cfg.TEST.DETECTIONS_PER_IMAGE`` is.
        backend (str): "faster" (faster-coco-eval) or "pycocotools"; their metrics are the same.

    Raises:
        DatasetError: the data set has no keypoints or its annotation cannot be used, or the sigmas are not K positive
            numbers.
        ValueError: an unknown task or backend.

    Example::

        >>> evaluator = PoseEvaluator("keypoints_coco_2017_val", output_dir="output/inference")
        >>> inference_on_dataset(model, data_loader, evaluator)["keypoints"]["AP"]
    """

    def __init__(
        self,
        dataset_name,
        *,
        tasks=None,
        sigmas=(),
        output_dir=None,
        distributed=True,
        max_dets=20,
        backend="faster",
    ):
        unknown = sorted(set(tasks or ()) - set(_TASKS))
        if unknown:
            raise ValueError(f"unknown tasks {', '.join(map(repr, unknown))}: known are {', '.join(_TASKS)}")
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: known are {', '.join(BACKENDS)}")
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._schema = _schema_with_sigmas(self._metadata, sigmas)
        self._tasks = tasks
        self._output_dir = output_dir
        self._distributed = distributed
        self._max_dets = max_dets
        self._backend = backend
        # Read now, since a fault in the file should not wait until the model has run over all images
        self._ground_truth = None
        if not distributed or comm.is_main_process():
            self._ground_truth = read_ground_truth(dataset_name, self._schema.num_keypoints)
        self.reset()

    @classmethod
    def from_cfg(cls, cfg, dataset_name, **kwargs):
        """An evaluator with ``cfg.TEST.KEYPOINT_OKS_SIGMAS`` that writes to ``<cfg.OUTPUT_DIR>/inference``.

        Args:
            cfg (CfgNode): a detectron2 config. With several ``DATASETS.TEST``, each has a folder of its name in there.
            dataset_name (str): see the class.
            kwargs: arguments of the class, which take precedence.
        """
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            output_dir = os.path.join(output_dir, dataset_name)
        return cls(dataset_name, **{"sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS, "output_dir": output_dir, **kwargs})

    def reset(self):
        """Forget all predictions."""
        self._predictions = []

    def process(self, inputs, outputs):
        """Take in the predictions of some images.

        Args:
            inputs (list[dict]): with ``image_id``.
            outputs (list[dict]): with ``instances``: ``scores``, ``pred_classes``, ``pred_keypoints`` (N, K, 3; x and y
                in continuous pixels of the original image, and the confidence, which is written to the results file as
                it is) and optionally ``pred_boxes``.

        Raises:
            DatasetError: the predictions have another number of keypoints than the data set.
        """
        for image, output in zip(inputs, outputs):
            self._predictions.append(
                collect_predictions(
                    image["image_id"], output["instances"], self._schema.num_keypoints, self._dataset_name
                )
            )

    def evaluate(self, img_ids=None):
        """Write the results file and compute the metrics.

        Args:
            img_ids (Sequence): ids of the images to evaluate; None = all of the data set. An image without predictions
                counts as one where nobody was found.

        Returns:
            OrderedDict[str, dict[str, float]]: task -> metric -> 0 to 100, NaN where the data set has nobody to compute
            it from. "keypoints" has AP, AP50, AP75, APm, APl and the same of AR, or with CrowdPose's protocol AP, AP50,
            AP75, the same of AR, APeasy, APmedium and APhard; "bbox" has AP, AP50, AP75, APs, APm and APl; both have
            ``AP-<class>`` where there is more than one class. Empty in all processes but the first, and where the data
            set has no annotation.

        Raises:
            DatasetError: predictions are of images or classes that the data set does not have.
            ValueError: "bbox" is asked for, but there are predictions without boxes.
        """
        predictions = self._gather()
        if predictions is None:
            return OrderedDict()
        self._check(predictions, everything=img_ids is None)
        detections = []
        for prediction in predictions:
            detections += to_coco_results(prediction, self._ground_truth.category_ids, self._dataset_name)
        self._write(detections)
        if self._ground_truth.annotations is None:
            logger.info("%s has no annotation: there is nothing to evaluate.", self._ground_truth.source)
            return OrderedDict()
        results = OrderedDict()
        for task in self._tasks or _tasks_of(predictions):
            results[task] = self._evaluate_task(task, detections, img_ids)
        return results

    def _gather(self):
        """The predictions of all processes, one per image; None in all processes but the first."""
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return None
            predictions = itertools.chain(*gathered)
        # Samplers that give each process the same number of images repeat some
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
                "%s: %d of %d images have not been predicted: everybody in them counts as missed.",
                self._dataset_name,
                len(ground_truth.image_ids) - len(predictions),
                len(ground_truth.image_ids),
            )
        if not any(len(prediction.scores) for prediction in predictions):
            logger.warning("%s: the model has predicted nobody in any image.", self._dataset_name)
        dropped = [prediction for prediction in predictions if prediction.num_dropped]
        if dropped:
            logger.warning(
                "%s: %d predictions with a NaN or infinite score or coordinate were left out, in %d images: %s. The "
                "model may have diverged.",
                self._dataset_name,
                sum(prediction.num_dropped for prediction in dropped),
                len(dropped),
                ", ".join(str(prediction.image_id) for prediction in dropped[:5]) + (", ..." if dropped[5:] else ""),
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
            self._log_sigmas()
            if self._ground_truth.protocol == "crowdpose":
                iou_type = "keypoints_crowd"
        accumulated, params = self._accumulate(iou_type, detections, img_ids)
        metrics = summarize(accumulated, params, iou_type)
        if iou_type == "keypoints_crowd":
            metrics.update(self._ap_of_groups(iou_type, detections, img_ids))
        logger.info("%s: evaluation results for %s:\n%s", self._dataset_name, task, create_small_table(metrics))
        class_names = self._metadata.get("thing_classes", ())
        if len(class_names) > 1:
            ap_of = category_ap(accumulated, params)
            per_class = {
                f"AP-{name}": ap_of[category_id]
                for name, category_id in zip(class_names, self._ground_truth.category_ids)
            }
            table = tabulate(per_class.items(), headers=("class", "AP"), tablefmt="pipe", floatfmt=".3f")
            logger.info("%s: %s AP per class:\n%s", self._dataset_name, task, table)
            metrics.update(per_class)
        return metrics

    def _ap_of_groups(self, iou_type, detections, img_ids):
        """AP of the images of each group alone, not a share of the AP of all."""
        groups = self._ground_truth.image_groups
        logger.info(
            "%s: evaluated as CrowdPose is, on %s images",
            self._dataset_name,
            ", ".join(f"{len(members)} {group}" for group, members in groups.items()),
        )
        metrics = {}
        for group, members in groups.items():
            chosen = set(members) if img_ids is None else set(members).intersection(img_ids)
            here = [detection for detection in detections if detection["image_id"] in chosen]
            metrics[f"AP{group}"] = summarize(*self._accumulate(iou_type, here, chosen), iou_type)["AP"]
        return metrics

    def _accumulate(self, iou_type, detections, img_ids):
        without_box = sum("bbox" not in detection for detection in detections)
        if iou_type == "bbox" and without_box:
            raise ValueError(
                f"box AP is asked for, but {without_box} of {len(detections)} predictions have no pred_boxes; evaluate "
                f'with tasks=("keypoints",)'
            )
        return evaluate_detections(
            self._ground_truth,
            detections,
            iou_type=iou_type,
            sigmas=self._schema.sigmas,
            max_dets=self._max_dets,
            backend=self._backend,
            image_ids=img_ids,
        )

    def _log_sigmas(self):
        schema = self._schema
        if schema.sigmas_are_default:
            logger.warning(
                "%s: the data set has no OKS sigmas. It is evaluated with the default %g for each of its %d keypoints, "
                "which is no measurement but the strictest of COCO's: AP comes out low, and can be compared on this "
                "data set only. Set its own with sigmas= of register_pose_dataset (in DATASETS.POSE) or with "
                "TEST.KEYPOINT_OKS_SIGMAS.",
                self._dataset_name,
                schema.sigmas[0],
                schema.num_keypoints,
            )
        else:
            logger.info(
                "%s: OKS sigmas: %s",
                self._dataset_name,
                ", ".join(f"{name} {sigma:g}" for name, sigma in zip(schema.names, schema.sigmas)),
            )


def _schema_with_sigmas(metadata, sigmas):
    schema = KeypointSchema.from_metadata(metadata)
    if len(sigmas) == 0:
        return schema
    try:
        return dataclasses.replace(schema, sigmas=tuple(map(float, sigmas)), sigmas_are_default=False)
    except DatasetError as error:
        raise DatasetError(
            f"data set {metadata.name!r}: {error} (they come from TEST.KEYPOINT_OKS_SIGMAS or the evaluator's sigmas)"
        ) from None


def _tasks_of(predictions):
    # An image where nobody was found may come without any field
    have_boxes = [prediction.boxes is not None for prediction in predictions if len(prediction.scores)]
    have_boxes = have_boxes or [prediction.boxes is not None for prediction in predictions]
    return ("keypoints", "bbox") if have_boxes and all(have_boxes) else ("keypoints",)
