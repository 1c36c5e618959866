"""Exported models without PyTorch and detectron2: one file, NumPy, Pillow, and onnxruntime or OpenVINO.

The package needs a few of dynpose's dependencies only::

    pip install --no-deps dynpose
    pip install numpy Pillow onnxruntime               # or openvino in place of onnxruntime, or onnxruntime-gpu
    pip install opencv-python-headless                 # for models that resize by an affine warp (CID's), and videos
    pip install av                                     # for videos
    pip install scipy                                  # for tracking

Example::

    >>> from dynpose.runtime import Pose
    >>> pose = Pose("pose.onnx")
    >>> people = pose("street.jpg")
    >>> people.pred_keypoints.shape
    (4, 17, 3)
"""

from dynpose.checkpoint.errors import CheckpointError
from dynpose.data.any_image import EncodedImage
from dynpose.data.schema import DatasetError

from .metadata import ExportMetadata
from .people import People
from .pose import Pose

__all__ = ["CheckpointError", "DatasetError", "EncodedImage", "ExportMetadata", "People", "Pose"]
