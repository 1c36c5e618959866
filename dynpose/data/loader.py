"""Training batches that depend on the seed and the iteration alone, so that a run can start at any iteration.

detectron2's loader is an endless stream whose position is lost with its workers. Here, the images of an iteration are
computed from the seed, and each image is augmented with a separate random state. No loader state has to be saved, and
neither the number of data workers nor the number of processes changes an image.

Axes: B images in a batch of all processes together (SOLVER.IMS_PER_BATCH), N images in the data set.
"""

import itertools
import logging
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    MetadataCatalog,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.data.build import filter_images_with_few_keypoints, filter_images_with_only_crowd_annotations
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import DataLoader, Dataset

from dynpose.config import ConfigError, blame, check_at_least_one, check_choice, check_not_negative
from dynpose.utils.random_state import preserved_rng, seed_rng

from .dataset_dicts import load_dataset_dicts
from .mapper import PoseDatasetMapper
from .schema import DatasetError

__all__ = ["PoseTrainLoader", "TrainingSchedule", "build_pose_train_loader", "get_pose_dataset_dicts", "training_dicts"]

logger = logging.getLogger(__name__)

# Purposes of the random generators, so that no two of them give the same numbers
_SHUFFLE, _SUBSET, _AUGMENTATION, _WORKERS = range(4)
_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
# Number of consecutive samples that a mapper may skip
_MAX_SKIPPED = 100


def build_pose_train_loader(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
) -> "PoseTrainLoader":
    """Build the training loader of a config.

    Args:
        cfg (CfgNode): DATASETS.TRAIN and the keys that filter its images (as in ``build_detection_train_loader``),
            DATALOADER.NUM_WORKERS, ASPECT_RATIO_GROUPING and SAMPLER_TRAIN, SOLVER.IMS_PER_BATCH and SEED are read.
            With a negative SEED, the processes agree on one.
        mapper (Callable): from a dataset dict to the model's input; None = a :class:`PoseDatasetMapper`.

    Returns:
        PoseTrainLoader

    Raises:
        ConfigError: IMS_PER_BATCH is not a multiple of the number of processes, or the sampler is unknown.
        DatasetError: a data set is not a list of dicts, or lacks the image sizes needed for grouping.

    Example::

        >>> loader = build_pose_train_loader(cfg)
        >>> loader.start_iteration = 5000
        >>> batch = next(iter(loader))  # that of iteration 5000
    """
    check_at_least_one(cfg, "SOLVER.IMS_PER_BATCH")
    check_not_negative(cfg, "DATALOADER.NUM_WORKERS")
    check_choice(cfg, "DATALOADER.SAMPLER_TRAIN", _SAMPLERS)
    as_registered = mapper is not None
    mapper = mapper or PoseDatasetMapper(cfg, is_train=True)
    proposal_files = cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
    dicts = training_dicts(cfg, proposal_files=proposal_files, as_registered=as_registered)
    seed = comm.shared_random_seed() if cfg.SEED < 0 else cfg.SEED
    groups = _aspect_ratio_groups(dicts) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    sampling = _sampling(cfg, dicts)
    with blame("DATALOADER.RANDOM_SUBSET_RATIO"):
        schedule = TrainingSchedule(len(dicts), cfg.SOLVER.IMS_PER_BATCH, seed=seed, groups=groups, **sampling)
    with blame("SOLVER.IMS_PER_BATCH"):
        return PoseTrainLoader(dicts, mapper, schedule, num_workers=cfg.DATALOADER.NUM_WORKERS)


def training_dicts(
    cfg: CfgNode, *, proposal_files: Sequence[str] | None = None, as_registered: bool = False
) -> list[dict[str, Any]]:
    """The images of ``DATASETS.TRAIN`` left after detectron2's filtering, as in detectron2's loader.

    They are read by :func:`~dynpose.data.dataset_dicts.load_dataset_dicts`.

    Args:
        cfg (CfgNode): DATALOADER.FILTER_EMPTY_ANNOTATIONS and, with MODEL.KEYPOINT_ON,
            MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE control the filtering.
        proposal_files (Sequence[str]): as in detectron2's ``get_detection_dataset_dicts``.
        as_registered (bool): see :func:`~dynpose.data.dataset_dicts.load_dataset_dicts`.

    Returns:
        list[dict]

    Raises:
        DatasetError: see :func:`~dynpose.data.dataset_dicts.load_dataset_dicts`; also if no image is left.
    """
    names = cfg.DATASETS.TRAIN
    loaded = [load_dataset_dicts(name, as_registered=as_registered) for name in names]
    for name, dicts in zip(names, loaded):
        if not isinstance(dicts, list):
            raise DatasetError(
                f"DATASETS.TRAIN {tuple(names)}: {type(dicts).__name__} of {name!r} is not a list of dicts; register a "
                "function that returns one, or override PoseTrainer.build_train_loader"
            )
        if not dicts:
            raise DatasetError(f"data set {name!r} has no images; add some, or take it out of DATASETS.TRAIN")
    if proposal_files is not None:
        if len(proposal_files) != len(names):
            raise ConfigError(
                f"DATASETS.PROPOSAL_FILES_TRAIN names {len(proposal_files)} files for {len(names)} DATASETS.TRAIN: "
                "name one for each, or set MODEL.LOAD_PROPOSALS False"
            )
        loaded = [load_proposals_into_dataset(dicts, file) for dicts, file in zip(loaded, proposal_files)]
    dicts = list(itertools.chain.from_iterable(loaded))
    if "annotations" not in dicts[0]:
        return dicts
    min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    dicts = _filter(dicts, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, min_keypoints)
    if not dicts:
        raise DatasetError(
            f"DATASETS.TRAIN {tuple(names)}: no image is left to train on: none has a person who is not a crowd "
            f"(DATALOADER.FILTER_EMPTY_ANNOTATIONS) and at least {min_keypoints} labelled keypoints "
            "(MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE); label some, or change these keys"
        )
    with suppress(AttributeError):  # data sets that name no classes
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(dicts, MetadataCatalog.get(names[0]).thing_classes)
    return dicts


def get_pose_dataset_dicts(
    names: str | Sequence[str], *, filter_empty: bool = True, min_keypoints: int = 0
) -> list[dict[str, Any]]:
    """Load registered data sets for a lazy config, as detectron2's ``get_detection_dataset_dicts`` does.

    They are read by :func:`~dynpose.data.dataset_dicts.load_dataset_dicts`.

    Args:
        names (str | Sequence[str]): names of the data sets.
        filter_empty (bool): skip images without people, or with crowds alone.
        min_keypoints (int): skip images with fewer labelled keypoints in total.

    Returns:
        list[dict]: in detectron2's format.

    Raises:
        DatasetError: see :func:`~dynpose.data.dataset_dicts.load_dataset_dicts`; also if no image is left.

    Example::

        >>> dicts = get_pose_dataset_dicts("keypoints_coco_2017_train", min_keypoints=1)
    """
    names = [names] if isinstance(names, str) else list(names)
    dicts = _filter(list(itertools.chain.from_iterable(map(load_dataset_dicts, names))), filter_empty, min_keypoints)
    if not dicts:
        raise DatasetError(
            f"data sets {', '.join(names) or '(none)'}: no image is left; label some, or change filter_empty "
            f"({filter_empty}) or min_keypoints ({min_keypoints})"
        )
    return dicts


def _filter(dicts, filter_empty, min_keypoints):
    """Skip images without people, and those with few labelled keypoints."""
    if filter_empty:
        dicts = filter_images_with_only_crowd_annotations(dicts)
    return filter_images_with_few_keypoints(dicts, min_keypoints) if min_keypoints > 0 else dicts


def _aspect_ratio_groups(dicts):
    """(N,) 1 for images that are wider than high, as detectron2 groups them."""
    for item in dicts:
        if "width" not in item or "height" not in item:
            raise DatasetError(
                f"{item.get('file_name', 'a dataset dict')}: has no width and height, by which images are grouped into "
                "batches; add them, or set DATALOADER.ASPECT_RATIO_GROUPING to False"
            )
    return np.array([item["width"] > item["height"] for item in dicts], dtype=np.int64)


def _sampling(cfg, dicts):
    """Arguments of TrainingSchedule for ``DATALOADER.SAMPLER_TRAIN``, which has the same meaning as in detectron2."""
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == "TrainingSampler":
        return {}
    if loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        check_not_negative(cfg, "DATALOADER.REPEAT_THRESHOLD")
        # a key of detectron2's main branch
        options = {"sqrt": loader.REPEAT_SQRT} if "REPEAT_SQRT" in loader else {}
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, loader.REPEAT_THRESHOLD, **options
        )
        return {"repeat_factors": factors.double().numpy()}
    return {"subset_ratio": loader.RANDOM_SUBSET_RATIO}


class TrainingSchedule:
    """The images in the batch of each iteration.

    The images are reshuffled for every epoch. A batch consists of images of one group: the first group to have B images
    forms the next batch, and images left over at the end of an epoch are carried over to the next.

    Args:
        num_images (int): N.
        batch_size (int): B.
        seed (int): determines the whole schedule.
        groups (ndarray): (N,) int group of each image; a batch has images of one group only; None = one group.
        repeat_factors (ndarray): (N,) average number of times that an image occurs in an epoch; None = once.
        subset_ratio (float): fraction of the images, drawn once, that are used.

    Raises:
        ValueError: the subset is empty.

    Example::

        >>> schedule = TrainingSchedule(num_images=5, batch_size=2, seed=0)
        >>> indices, positions = next(schedule.batches(start_iteration=1))
        >>> positions
        array([2, 3])
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        groups: np.ndarray | None = None,
        repeat_factors: np.ndarray | None = None,
        subset_ratio: float = 1.0,
    ):
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self._groups = np.zeros(num_images, dtype=np.int64) if groups is None else np.asarray(groups)
        self._repeat_factors = repeat_factors
        if not 1 <= num_images * subset_ratio <= num_images:
            raise ValueError(
                f"subset_ratio: expected a fraction of at most 1 that keeps at least one of {num_images} images, got "
                f"{subset_ratio}"
            )
        self._subset_size = int(num_images * subset_ratio)

    def batches(self, start_iteration: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the batches, endlessly.

        Args:
            start_iteration (int): iteration of the first batch. Earlier batches are skipped an epoch at a time, in
                about the time of the shuffling.

        Yields:
            ndarray: (2, B) indices of the images, and their unique positions in the sequence of all images shown.
        """
        waiting = np.zeros((2, 0), dtype=np.int64)
        to_skip, position, epoch = start_iteration, 0, 0
        while True:
            images = self._epoch(epoch)
            shown = np.stack([images, position + np.arange(len(images))])
            full, waiting = self._cut(np.concatenate([waiting, shown], axis=1))
            yield from full[to_skip:]
            to_skip = max(0, to_skip - len(full))
            position, epoch = position + len(images), epoch + 1

    def _epoch(self, epoch):
        generator = _generator(self.seed, _SHUFFLE, epoch)
        images = np.arange(self.num_images)
        if self._subset_size < self.num_images:
            images = _generator(self.seed, _SUBSET).permutation(images)[: self._subset_size]
        if self._repeat_factors is not None:
            whole = np.floor(self._repeat_factors)
            more = generator.random(len(whole)) < self._repeat_factors - whole
            images = np.repeat(images, whole.astype(np.int64) + more)
        return generator.permutation(images)

    def _cut(self, shown):
        """Cut a (2, M) sequence of images and positions into (T, 2, B) full batches and a (2, R) remainder."""
        groups = self._groups[shown[0]]
        full, left = [], []
        for group in np.unique(groups):
            members = shown[:, groups == group]
            count = members.shape[1] // self.batch_size
            batches, rest = np.split(members, [count * self.batch_size], axis=1)
            full.append(batches.reshape(2, count, self.batch_size).swapaxes(0, 1))
            left.append(rest)
        full, left = np.concatenate(full), np.concatenate(left, axis=1)
        # batches in the order in which they became full; the remainder in its original order
        return full[np.argsort(full[:, 1, -1])], left[:, np.argsort(left[1])]


class PoseTrainLoader:
    """Yields the batches of this process, starting at any iteration.

    An image's augmentation draws from ``random``, ``numpy.random`` and ``torch``, which are seeded for each image;
    their state outside is preserved.

    Args:
        dicts (list[dict]): the N images, in detectron2's format.
        mapper (Callable): from a dict to the model's input, or to None to replace the image by another, drawn at
            random. Its result must depend on the dict and on the three generators alone.
        schedule (TrainingSchedule): the images of each batch.
        num_workers (int): data workers of this process; 0 = the process loads the images itself.

    Raises:
        ValueError: the batch is not a multiple of the number of processes.

    Attributes:
        start_iteration (int): iteration of the first batch of a new iterator. An iterator reads it, and starts its
            workers, when its first batch is requested.

    Example::

        >>> loader = PoseTrainLoader(dicts, mapper, TrainingSchedule(len(dicts), 16, seed=1), num_workers=4)
        >>> for batch in loader:
        ...     losses = model(batch)
    """

    def __init__(
        self,
        dicts: list[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any] | None],
        schedule: TrainingSchedule,
        *,
        num_workers: int = 0,
    ):
        num_processes = comm.get_world_size()
        if schedule.batch_size < 1 or schedule.batch_size % num_processes:
            raise ValueError(
                f"schedule: {schedule.batch_size} images of a batch can't be shared equally by {num_processes} "
                "processes: make them a multiple"
            )
        self.schedule = schedule
        self.num_workers = num_workers
        self.start_iteration = 0
        self._dataset = _SeededDataset(DatasetFromList(dicts, copy=False), mapper, schedule.seed)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        share = self.schedule.batch_size // comm.get_world_size()
        first = comm.get_rank() * share
        sampler = _Samples(self.schedule, self.start_iteration, slice(first, first + share))
        # With a separate generator the loader draws no number from the global one
        yield from DataLoader(
            self._dataset,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_as_list,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator().manual_seed(_seed(self.schedule.seed, _WORKERS)),
        )

    def state_dict(self) -> dict[str, int]:
        """The values that determine the batches, for :meth:`load_state_dict` to compare."""
        schedule = self.schedule
        return {"seed": schedule.seed, "num_images": schedule.num_images, "batch_size": schedule.batch_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume with the seed of a run; warn if the number of images or the batch size has changed."""
        ours = self.state_dict()
        for key, meaning in (("num_images", "training images"), ("batch_size", "images in a batch")):
            if state_dict[key] != ours[key]:
                logger.warning(
                    f"The resumed run had {state_dict[key]} {meaning}, now there are {ours[key]}: it does not "
                    "continue with the images that it would have seen"
                )
        if state_dict["seed"] != ours["seed"]:
            logger.warning(f"The images are those of the resumed run's seed {state_dict['seed']}, not {ours['seed']}")
            self.schedule.seed = self._dataset.seed = state_dict["seed"]


class _Samples:
    """The batch sampler of a process: endless lists of (index, position)."""

    def __init__(self, schedule, start_iteration, share):
        self.schedule, self.start_iteration, self.share = schedule, start_iteration, share

    def __iter__(self):
        for indices, positions in self.schedule.batches(self.start_iteration):
            yield list(zip(indices[self.share].tolist(), positions[self.share].tolist()))


class _SeededDataset(Dataset):
    """Maps (index, position) to the image of that index, augmented with the random numbers of that position."""

    def __init__(self, dicts, mapper, seed):
        self._dicts, self._mapper, self.seed = dicts, PicklableWrapper(mapper), seed

    def __len__(self):
        return len(self._dicts)

    def __getitem__(self, sample):
        index, position = sample
        with preserved_rng(cuda=False):
            seed_rng(_seed(self.seed, _AUGMENTATION, position), cuda=False)
            for _ in range(_MAX_SKIPPED):
                mapped = self._mapper(self._dicts[index])
                if mapped is not None:
                    return mapped
                index = random.randrange(len(self))
        raise DatasetError(
            f"the mapper skipped {_MAX_SKIPPED} images in a row, the last of them "
            f"{self._dicts[index].get('file_name', index)}; it should return None for few of them"
        )


def _generator(*key):
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _seed(*key):
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _as_list(batch):
    return batch


def _ignore_signals(worker_id):
    """Ignore signals: SLURM signals all processes of a job, and the main one needs its workers to end its iteration."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
