"""Log messages of an evaluation, apart from its result tables."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Sequence

from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from .ground_truth import GroundTruth
from .pck import PCKResults

__all__ = ["first_few", "log_nan", "log_pck", "log_sigmas", "warn_of_crowded_images"]

logger = logging.getLogger(__name__)


def warn_of_crowded_images(
    dataset_name: str, ground_truth: GroundTruth, max_dets: dict[str, int], tasks: Collection[str]
) -> None:
    """Warn of images with more people of a class than the limit on detections.

    Args:
        dataset_name (str): the data set.
        ground_truth (GroundTruth): its ground truth; crowds are ignored, for keypoints also unlabelled people.
        max_dets (dict[str, int]): "keypoints" and "bbox" -> the limit.
        tasks (Collection[str]): of the evaluation.
    """
    for kind, key in (("keypoints", "KEYPOINTS"), ("bbox", "BOXES")):
        labelled = kind == "keypoints"
        crowded = _images_above(ground_truth.annotations or (), max_dets[kind], labelled=labelled)
        if not crowded or not {kind, "pck" if labelled else kind}.intersection(tasks):
            continue
        logger.warning(
            "%s: %d images hold more than %d people of a class%s: %s. Only that many predictions of each class in an "
            "image count, the best by score, so that some of these people are always missed. "
            "TEST.MAX_DETS.%s (of the evaluator: max_dets, max_dets_boxes) is the limit.",
            dataset_name,
            len(crowded),
            max_dets[kind],
            " with labelled keypoints" if labelled else "",
            first_few([ground_truth.image_ids[number - 1] for number in crowded]),
            key,
        )


def log_sigmas(dataset_name: str, names: Sequence[str], sigmas: Sequence[float], *, are_default: bool) -> None:
    """Log the OKS sigmas, and warn of the default.

    Args:
        dataset_name (str): the data set.
        names (Sequence[str]): K keypoint names.
        sigmas (Sequence[float]): K.
        are_default (bool): whether none were given.
    """
    if are_default:
        logger.warning(
            "%s: the data set has no OKS sigmas. It is evaluated with the default %g for each of its %d keypoints, "
            "which is not measured but the strictest of COCO's: AP comes out low, and can be compared on this "
            "data set only. Set its own with sigmas= of register_pose_dataset (in DATASETS.POSE) or with "
            "TEST.KEYPOINT_OKS_SIGMAS.",
            dataset_name,
            sigmas[0],
            len(names),
        )
    else:
        listed = ", ".join(f"{name} {sigma:g}" for name, sigma in zip(names, sigmas))
        logger.info("%s: OKS sigmas: %s", dataset_name, listed)


def log_pck(dataset_name: str, results: PCKResults, names: Sequence[str]) -> None:
    """Log tables of PCK, AUC and NME.

    Args:
        dataset_name (str): the data set.
        results (PCKResults): its results.
        names (Sequence[str]): K keypoint names.
    """
    logger.info(
        "%s: %d of %d people have a prediction; NME is relative to %s:\n%s",
        dataset_name,
        results.num_found,
        results.num_people,
        results.nme_unit,
        create_small_table(results.metrics),
    )
    rows = zip(names, *results.per_keypoint.values())
    table = tabulate(rows, headers=("keypoint", *results.per_keypoint), tablefmt="pipe", floatfmt=".3f")
    logger.info("%s: pck of each keypoint:\n%s", dataset_name, table)


def log_nan(dataset_name: str, task: str, metrics: dict[str, float], reasons: dict[str, list[str]]) -> None:
    """Log why metrics are NaN; a warning for AP itself.

    Args:
        dataset_name (str): the data set.
        task (str): of the metrics.
        metrics (dict[str, float]): name -> value.
        reasons (dict[str, Sequence[str]]): reason, worded to follow "since" -> metrics that are NaN only for it.
    """
    for reason, names in reasons.items():
        names = [name for name in names if math.isnan(metrics[name])]
        if names:
            logger.log(
                logging.WARNING if "AP" in names else logging.INFO,
                "%s: %s: NaN since %s among the images that are evaluated: %s",
                dataset_name,
                task,
                reason,
                ", ".join(names),
            )


def first_few(items: Sequence[int | str]) -> str:
    """The first five of a list, for a message."""
    return ", ".join(map(str, items[:5])) + (", ..." if items[5:] else "")


def _images_above(annotations, limit, *, labelled):
    """Sorted ``image_id`` of images with more people of a class than a limit, ignoring crowds."""
    people = Counter(
        (annotation["image_id"], annotation["category_id"])
        for annotation in annotations
        if not annotation["iscrowd"] and (annotation["num_keypoints"] > 0 or not labelled)
    )
    return sorted({image_id for (image_id, _), number in people.items() if number > limit})
