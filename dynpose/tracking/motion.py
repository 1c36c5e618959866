"""A constant-velocity Kalman filter of the keypoints of one person.

Axes: K keypoints. Coordinates are continuous pixels (x, y), times seconds.
"""

from __future__ import annotations

import numpy as np

__all__ = ["KeypointMotion"]

# Standard deviations in person sizes. They are ByteTrack's weights of a box's height, 1/20 for measured and predicted
# positions and 1/160 for velocities, which its filter adds once per frame of 1/30 second. Here the two of the
# prediction are diffusion rates, so that they hold for frames at any distance in time.
_MEASURED = 1 / 20
_POSITION_RATE = (1 / 20) ** 2 * 30
_VELOCITY_RATE = (1 / 160 * 30) ** 2 * 30
# Of a new person, ByteTrack's 10/160 a frame
_FIRST_VELOCITY = 10 / 160 * 30


class KeypointMotion:
    """The position and velocity of each keypoint.

    All keypoints have the same noise, relative to the size of the person, and are measured in every frame. Their
    covariance is therefore the same: one matrix of position and velocity.

    Args:
        points (ndarray): (K, 2), measured positions.
        size (float): of the person, pixels; the square root of the area.
    """

    def __init__(self, points: np.ndarray, size: float):
        self.points = np.array(points, dtype=np.float64)
        self.velocities = np.zeros_like(self.points)
        self.covariance = np.diag([(2 * _MEASURED * size) ** 2, (_FIRST_VELOCITY * size) ** 2])

    def predict(self, seconds: float, size: float) -> None:
        """Move the keypoints.

        Args:
            seconds (float): since the last call or the measurement of the constructor.
            size (float): see the class.
        """
        self.points = self.points + self.velocities * seconds
        step = np.array([[1.0, seconds], [0.0, 1.0]])
        # white noise of the acceleration, integrated over the time, and a random walk of the position
        acceleration = np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
        noise = _VELOCITY_RATE * acceleration + _POSITION_RATE * np.diag([seconds, 0.0])
        self.covariance = step @ self.covariance @ step.T + noise * size**2

    def correct(self, points: np.ndarray, size: float) -> None:
        """Take measured positions into account.

        Args:
            points (ndarray): (K, 2).
            size (float): see the class.
        """
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + (_MEASURED * size) ** 2)
        surprise = points - self.points
        self.points = self.points + gain[0] * surprise
        self.velocities = self.velocities + gain[1] * surprise
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])

    def move_as_one(self) -> None:
        """Give all keypoints the mean velocity.

        An unseen person moves on, but the swing of its limbs, continued for a second, would tear the pose apart.
        """
        self.velocities = np.broadcast_to(self.velocities.mean(axis=0), self.velocities.shape)
