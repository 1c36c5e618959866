"""Exported files in milliseconds: a network of a few operators, with the inputs, outputs and metadata of an export."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dynpose.runtime.sessions import openvino_core

METADATA = {
    "format": 1,
    "dynpose": "0.1.0",
    "method": "Fixed",
    "config": "fixed.yaml",
    "licence": "unknown",
    "class_names": ["person", "dog"],
    "keypoint_names": ["head", "left_hand", "right_hand"],
    "skeleton": [[0, 1], [0, 2]],
    "flip_pairs": [["left_hand", "right_hand"]],
    "sigmas": [0.05, 0.1, 0.1],
    "input": {"channels": "BGR", "size_divisibility": 32, "min_size": 64, "max_size": 100, "rule": "shortest_edge"},
    "normalisation": {"mean": [0.0] * 3, "std": [1.0] * 3, "inside": True},
    "flip": False,
    "max_people": 4,
    "precision": "float32",
    "inputs": ["images", "image_sizes"],
    "outputs": ["boxes", "scores", "classes", "keypoints", "counts"],
    "score_threshold": 0.0,
}
# Of the network's three people and a row that is not filled, relative to the image: inside, partly and wholly outside.
BOXES = np.array([[0.2, 0.1, 0.6, 0.9], [0.5, -0.2, 1.3, 0.7], [1.1, 0.2, 1.4, 0.8], [0, 0, 0, 0]], dtype=np.float32)
SCORES = np.array([0.9, 0.6, 0.3, 0], dtype=np.float32)
CLASSES = np.array([0, 1, 0, 0], dtype=np.int64)
POINTS = np.array(
    [[[0.4, 0.2], [0.3, 0.5], [0.5, 0.5]], [[0.9, -0.1], [0.7, 0.3], [1.1, 0.3]], [[1.2, 0.3]] * 3, [[0, 0]] * 3],
    dtype=np.float32,
)


def write_exported(path, *, batch="B", height="H", width="W", **metadata):
    """Write the file of a network that finds three people at fixed places, and none in a black image.

    The confidence of keypoint k is the mean of input channel k over 255, so that it shows the input's pixels.

    Args:
        path (Path)
        batch, height, width (int | str): of the images; names are dynamic.
        **metadata: replaced values; None leaves the key out. ``metadata=None``: no metadata at all.

    Returns:
        Path: of the file.
    """
    model = helper.make_model(_graph(batch, height, width), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata.get("metadata", METADATA) is not None:
        values = {key: value for key, value in {**METADATA, **metadata}.items() if value is not None}
        helper.set_model_props(model, {"dynpose": json.dumps(values)})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return Path(path)


def write_openvino(folder, **options):
    """Write the network of :func:`write_exported` as OpenVINO's two files; returns the path of the .xml."""
    import openvino

    file = write_exported(folder / "from.onnx", **options)
    model = openvino_core().read_model(file)
    text = json.dumps({**METADATA, **{key: value for key, value in options.items() if key in METADATA}})
    model.set_rt_info(text, "dynpose")
    openvino.save_model(model, folder / "pose.xml", compress_to_fp16=False)
    return folder / "pose.xml"


def expected_inputs(pixels, size):
    """What the network computes from an input: boxes, keypoints (3 people, 3, 3) in its pixels.

    Args:
        pixels (ndarray): (3, h, w) of the image before padding.
        size (tuple[int, int]): height and width of the padded input.
    """
    height, width = pixels.shape[1:]
    means = pixels.reshape(3, -1).astype(np.float64).sum(axis=1) / (size[0] * size[1] * 255)
    points = POINTS[:3] * np.array([width, height], dtype=np.float32)
    confidences = np.broadcast_to(means.astype(np.float32)[:, None], (3, 3, 1))
    return BOXES[:3] * np.array([width, height] * 2, dtype=np.float32), np.concatenate([points, confidences], axis=2)


def _graph(batch, height, width):
    constants = {
        "relative_boxes": BOXES[None],
        "relative_points": POINTS[None],
        "person_scores": SCORES[None],
        "person_classes": CLASSES[None],
        "box_sides": np.array([1, 0, 1, 0], dtype=np.int64),
        "point_sides": np.array([1, 0], dtype=np.int64),
        "axis_1": np.array([1], dtype=np.int64),
        "axes_of_people": np.array([1, 2], dtype=np.int64),
        "pixel_axes": np.array([2, 3], dtype=np.int64),
        "all_but_batch": np.array([1, 2, 3], dtype=np.int64),
        "zero": np.zeros(1, dtype=np.float32),
        "grey_levels": np.array(255, dtype=np.float32),
        "three": np.array([3], dtype=np.int64),
        "confidence_shape": np.array([0, 1, 3, 1], dtype=np.int64),
        "people_shape": np.array([1, 4, 1, 1], dtype=np.int64),
    }
    steps = [
        ("Cast", ["image_sizes"], "sides", {"to": TensorProto.FLOAT}),
        ("Gather", ["sides", "box_sides"], "whwh", {"axis": 1}),
        ("Unsqueeze", ["whwh", "axis_1"], "box_scale", {}),
        ("Mul", ["relative_boxes", "box_scale"], "boxes", {}),
        ("Gather", ["sides", "point_sides"], "wh", {"axis": 1}),
        ("Unsqueeze", ["wh", "axes_of_people"], "point_scale", {}),
        ("Mul", ["relative_points", "point_scale"], "points", {}),
        ("ReduceMean", ["images", "pixel_axes"], "means", {"keepdims": 0}),
        ("Div", ["means", "grey_levels"], "shares", {}),
        ("Reshape", ["shares", "confidence_shape"], "confidence", {}),
        ("Expand", ["confidence", "people_shape"], "confidences", {}),
        ("Concat", ["points", "confidences"], "keypoints", {"axis": 3}),
        ("ReduceMax", ["images", "all_but_batch"], "brightest", {"keepdims": 0}),
        ("Greater", ["brightest", "zero"], "lit", {}),
        ("Cast", ["lit"], "lit_number", {"to": TensorProto.INT64}),
        ("Mul", ["lit_number", "three"], "counts", {}),
        ("Shape", ["whwh"], "score_shape", {}),
        ("Expand", ["person_scores", "score_shape"], "scores", {}),
        ("Expand", ["person_classes", "score_shape"], "classes", {}),
    ]
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    return helper.make_graph(
        [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps],
        "fixed",
        [
            helper.make_tensor_value_info("images", float32, [batch, 3, height, width]),
            helper.make_tensor_value_info("image_sizes", int64, [batch, 2]),
        ],
        [
            helper.make_tensor_value_info("boxes", float32, [batch, 4, 4]),
            helper.make_tensor_value_info("scores", float32, [batch, 4]),
            helper.make_tensor_value_info("classes", int64, [batch, 4]),
            helper.make_tensor_value_info("keypoints", float32, [batch, 4, 3, 3]),
            helper.make_tensor_value_info("counts", int64, [batch]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
