"""Tracking people over the frames of a video by the similarity of their poses.

Axes: N instances of a frame, M tracks, K keypoints. Coordinates are continuous pixels (x, y), times seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from scipy.optimize import linear_sum_assignment

from .motion import KeypointMotion

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from torch import Tensor

    from dynpose.runtime import People

__all__ = ["PoseTracker"]

# Minimum OKS of a pair in the first association, the second one, and that of tracks seen only once: ByteTrack's
# limits of the IoU
_FIRST, _SECOND, _SEEN_ONCE = 0.2, 0.5, 0.3
# A pose whose box is empty, as with a single keypoint, still has a size, pixels
_MIN_SIZE = 8.0


class PoseTracker:
    """Gives the people of a video identities that are stable over its frames.

    This is the association of ByteTrack (Zhang et al., ECCV 2022, algorithm 1) with OKS in place of the IoU of boxes,
    and with a constant-velocity Kalman filter of the keypoints: first, all tracks are matched with the people of a high
    score; then, the tracks that were seen in the previous frame and are left are matched with the people of a low
    score, who are often occluded. Unmatched people of a high score begin tracks. A new track ends if the next frame
    does not confirm it, any other one when it is unseen for ``max_unseen`` seconds. Instances of different classes are
    not matched. The same frames give the same identities.

    Unlike ByteTrack, OKS is not multiplied by the score, whose scale differs between the methods, and a new track has
    an identity in its first frame.

    Args:
        sigmas (Sequence[float]): (K,) OKS sigmas, ``schema.sigmas``.
        high_score (float): minimum score of the first association and of a new track.
        low_score (float): minimum score of the second association; others have no identity.
        max_unseen (float): seconds that a track survives without an instance.
        frame_rate (float): frames per second, for frames without a time.

    Raises:
        ValueError: an argument is out of range.

    Example::

        >>> tracker = PoseTracker(predictor.schema.sigmas)
        >>> for image in frames:
        ...     people = predictor(image)
        ...     people.track_ids = tracker.update(people)
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        *,
        high_score: float = 0.3,
        low_score: float = 0.1,
        max_unseen: float = 1.0,
        frame_rate: float = 30.0,
    ):
        if not len(sigmas) or not all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas):
            raise ValueError(f"the sigmas must be positive, got {list(sigmas)}")
        if not low_score <= high_score:
            raise ValueError(f"low_score {low_score} must not be above high_score {high_score}")
        if not (max_unseen >= 0 and frame_rate > 0):
            raise ValueError(
                f"max_unseen must be at least 0 and frame_rate positive, got {max_unseen} and {frame_rate}"
            )
        self.sigmas = tuple(map(float, sigmas))
        self.high_score = high_score
        self.low_score = low_score
        self.max_unseen = max_unseen
        self.frame_rate = frame_rate
        self.reset()

    def reset(self) -> None:
        """Forget all tracks, for another video."""
        self._tracks: list[_Track] = []
        self._time: float | None = None
        self._last_id = 0
        self._is_first = True

    @overload
    def update(self, instances: People, time: float | None = None) -> np.ndarray: ...

    @overload
    def update(self, instances: Instances, time: float | None = None) -> Tensor: ...

    def update(self, instances: Instances | People, time: float | None = None) -> Tensor | np.ndarray:
        """Take the next frame.

        Args:
            instances (Instances | People): N people, with ``pred_boxes``, ``scores``, ``pred_classes`` and
                ``pred_keypoints`` (N, K, 3) in continuous pixels. Those with a value that is not finite have no
                identity.
            time (float | None): of the frame, seconds; increasing. None = one frame after the previous one.

        Returns:
            Tensor | ndarray: (N,) int64 on the CPU, identities from 1; -1 = none. An array for People.

        Raises:
            ValueError: the instances have another number of keypoints than there are sigmas, or the time is not finite
                or not after that of the previous frame. The tracker is unchanged then.
        """
        seen = _Seen(instances, len(self.sigmas))
        seconds = self._seconds_since_last(time)
        for track in self._tracks:
            track.predict(seconds)
        ids = np.full(len(instances), -1, dtype=np.int64)
        high = np.flatnonzero(seen.finite & (seen.scores >= self.high_score))
        low = np.flatnonzero(seen.finite & (seen.scores >= self.low_score) & (seen.scores < self.high_score))
        known = [track for track in self._tracks if track.is_confirmed]
        new = [track for track in self._tracks if not track.is_confirmed]

        high = self._associate(known, high, seen, _FIRST, ids)
        recent = [track for track in known if track.unseen == seconds]
        self._associate(recent, low, seen, _SECOND, ids)
        high = self._associate(new, high, seen, _SEEN_ONCE, ids)

        self._tracks = [track for track in self._tracks if self._survives(track)]
        for track in self._tracks:
            if track.unseen:
                track.motion.move_as_one()
        for index in high:
            self._last_id += 1
            # as in ByteTrack, the people of the first frame need no confirmation
            self._tracks.append(_Track(self._last_id, seen, index, is_confirmed=self._is_first))
            ids[index] = self._last_id
        self._is_first = False
        if isinstance(instances.scores, np.ndarray):
            return ids
        import torch

        return torch.from_numpy(ids)

    def _seconds_since_last(self, time):
        if time is not None and not math.isfinite(time):
            raise ValueError(f"the time of a frame must be finite, got {time}")
        previous = self._time
        if previous is None:
            self._time = 0.0 if time is None else float(time)
            return 0.0
        now = previous + 1 / self.frame_rate if time is None else float(time)
        if not now > previous:
            raise ValueError(f"a frame at {time} s is not after the previous one, at {previous} s")
        self._time = now
        return now - previous

    def _associate(self, tracks, candidates, seen, min_oks, ids):
        """Match tracks with instances, correct the tracks, and write the identities; return the instances left."""
        if not tracks or not len(candidates):
            return candidates
        oks = self._similarity(tracks, candidates, seen)
        # Pairs below the minimum count as unmatched: the assignment maximises what the others have above it
        gain = np.maximum(oks - min_oks, 0)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        left = np.ones(len(candidates), dtype=bool)
        for row, column in zip(rows, columns):
            if oks[row, column] >= min_oks:
                tracks[row].correct(seen, candidates[column])
                ids[candidates[column]] = tracks[row].id
                left[column] = False
        return candidates[left]

    def _similarity(self, tracks, candidates, seen):
        """(M, N) OKS of tracks and instances, 0 between classes; the area is the mean of both boxes."""
        sizes = np.array([track.size for track in tracks])
        areas = (sizes[:, None] ** 2 + seen.sizes[None, candidates] ** 2) / 2
        oks = _pairwise_oks(
            np.stack([track.motion.points for track in tracks]), seen.points[candidates], areas, self.sigmas
        )
        classes = np.array([track.class_index for track in tracks])
        return oks * (classes[:, None] == seen.classes[None, candidates])

    def _survives(self, track):
        return not track.unseen or (track.is_confirmed and track.unseen <= self.max_unseen)


def _pairwise_oks(poses, others, areas, sigmas):
    """(N, M) OKS of poses (N, K, 2) and others (M, K, 2), as :func:`dynpose.layers.oks_nms.pairwise_oks` of tensors.

    Args:
        areas (ndarray): (N, M), positive.
    """
    distances = np.square(poses[:, None] - others[None]).sum(axis=3)
    return np.exp(-distances / (8 * np.square(sigmas)) / areas[..., None]).mean(axis=2)


def _array(values):
    """A float64 array of a tensor on any device, or of an array."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


class _Seen:
    """The instances of a frame as arrays."""

    def __init__(self, instances, num_keypoints):
        if instances.pred_keypoints.shape[1] != num_keypoints:
            raise ValueError(
                f"instances of {instances.pred_keypoints.shape[1]} keypoints, but a tracker of {num_keypoints} sigmas"
            )
        boxes = _array(getattr(instances.pred_boxes, "tensor", instances.pred_boxes))
        self.points = _array(instances.pred_keypoints)[..., :2]
        self.scores = _array(instances.scores)
        self.classes = _array(instances.pred_classes).astype(np.int64)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        self.sizes = np.maximum(np.sqrt(sides.prod(axis=1)), _MIN_SIZE)
        self.finite = np.isfinite(boxes).all(axis=1) & np.isfinite(self.points).all(axis=(1, 2))


class _Track:
    """One person over time."""

    def __init__(self, id_, seen, index, is_confirmed):
        self.id = id_
        self.class_index = seen.classes[index]
        self.size = seen.sizes[index]
        self.motion = KeypointMotion(seen.points[index], self.size)
        self.is_confirmed = is_confirmed
        self.unseen = 0.0
        """Seconds since the last instance"""

    def predict(self, seconds):
        self.unseen += seconds
        self.motion.predict(seconds, self.size)

    def correct(self, seen, index):
        self.size = seen.sizes[index]
        self.motion.correct(seen.points[index], self.size)
        self.unseen = 0.0
        self.is_confirmed = True
