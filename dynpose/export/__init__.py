"""Export of models to files that run without dynpose, detectron2 and, but for PyTorch's formats, PyTorch.

``network`` is the exported module, from pixels to padded people; ``capture`` makes a graph of it; ``onnx_file``,
``torch_file`` and ``openvino_file`` write one, ``reduced_precision`` converts it, ``metadata`` describes it;
``samples``, ``running`` and ``comparing`` check it, ``accuracy`` measures what a precision costs; ``exporting`` is the
sequence of these. A model needs one method for it, ``detect(images, image_sizes)``, which returns
:class:`~dynpose.modeling.detections.Detections`.
"""

from .exporting import FORMATS, PRECISIONS, check_file, export_network
from .metadata import file_metadata
from .network import ExportNetwork
from .samples import Sample, check_samples

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "ExportNetwork",
    "Sample",
    "check_file",
    "check_samples",
    "export_network",
    "file_metadata",
]
