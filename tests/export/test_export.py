"""`dynpose export` with a toy model whose people are the bright cells of an image: files, contents, their check."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from peak_pose import SCHEMA, STRIDE, PeakPose

from dynpose.config import ConfigError
from dynpose.export import ExportNetwork, Sample, check_file, check_samples, export_network, file_metadata
from dynpose.export.capture import captured
from dynpose.export.running import RUNNERS
from dynpose.version import __version__

SCENES = (
    (64, 64, ()),
    (64, 96, ((1, 1),)),
    (90, 217, ((1, 1), (5, 7), (3, 3), (8, 20))),
    # more people than the file's eight rows
    (192, 160, tuple((2 + 3 * (i // 4), 2 + 4 * (i % 4)) for i in range(12))),
)
# one side within the size divisibility, less than the least that is captured: the graphs hold for it too
NARROW = (30, 90, ((1, 4),))


def assert_equals(network, run, scene, *more, tolerance=1e-3):
    for height, width, cells in (*SCENES, *more):
        images, image_sizes = scene(height, width, cells)
        expected, found = network(images, image_sizes), run(images, image_sizes)
        assert int(found[4]) == min(8, len(cells))
        for a, b in zip(expected, found):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            torch.testing.assert_close(b, a, atol=tolerance, rtol=0)


def test_people_of_the_network_are_those_of_the_model(peak_model, scene):
    network = ExportNetwork(peak_model, max_people=8)
    first, second = scene(64, 96, ((1, 1), (5, 7))), scene(60, 90, ((3, 3),))
    boxes, scores, classes, keypoints, counts = network(*(torch.cat(pair) for pair in zip(first, second)))
    assert counts.tolist() == [2, 1]
    for index, (images, image_sizes) in enumerate((first, second)):
        height, width = image_sizes[0].tolist()
        expected = peak_model([{"image": images[0, :, :height, :width]}])[0]["instances"]
        count = len(expected)
        torch.testing.assert_close(scores[index, :count], expected.scores, atol=0, rtol=0)
        torch.testing.assert_close(keypoints[index, :count], expected.pred_keypoints, atol=1e-4, rtol=0)
        assert not any(each[index, count:].any() for each in (boxes, scores, classes, keypoints))
    # the centre of the cell of row 5 and column 7 is (60, 44)
    assert boxes[0, 1].tolist() == [60 - 2 * STRIDE, 44 - 2 * STRIDE, 60 + 2 * STRIDE, 44 + 2 * STRIDE]


def test_padding_is_zero_after_normalisation(peak_model, scene):
    images, image_sizes = scene(60, 90, ((3, 3),))
    bright = images.clone()
    bright[:, :, 60:], bright[:, :, :, 90:] = 255, 255
    network = ExportNetwork(peak_model, max_people=8)
    for a, b in zip(network(images, image_sizes), network(bright, image_sizes)):
        assert torch.equal(a, b)


def test_people_with_the_highest_scores_are_kept(peak_model, scene):
    inputs = scene(90, 217, ((1, 1), (5, 7), (3, 3), (8, 20)))
    few, all_people = (ExportNetwork(peak_model, max_people=limit)(*inputs) for limit in (2, 8))
    assert (few[4].item(), all_people[4].item()) == (2, 4)
    assert torch.equal(few[3], all_people[3][:, :2])


def test_onnx_equals_pytorch(onnx_file, peak_model, scene):
    network = ExportNetwork(peak_model, max_people=8)
    run = RUNNERS["onnx"](onnx_file, "float32")
    assert_equals(network, run, scene, NARROW)
    batch = [torch.cat(pair) for pair in zip(scene(64, 96, ((1, 1),)), scene(60, 90, ((1, 1), (3, 3))))]
    for a, b in zip(network(*batch), run(*batch)):
        torch.testing.assert_close(b, a, atol=1e-3, rtol=0)


def test_onnx_file(onnx_file):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes["images"][1] == 3
    assert all(isinstance(shapes["images"][axis], str) for axis in (0, 2, 3))
    assert shapes["keypoints"][1:] == [8, 4, 3]
    assert list(shapes) == ["images", "image_sizes", "boxes", "scores", "classes", "keypoints", "counts"]
    # the exporter notes the source line of each node
    assert os.path.dirname(__file__).encode() not in onnx_file.read_bytes()


def test_metadata(onnx_file):
    onnx = pytest.importorskip("onnx")
    entries = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    described = json.loads(entries["dynpose"])
    assert described == {
        "format": 1,
        "dynpose": __version__,
        "method": "PeakPose",
        "config": "",
        "licence": "unknown",
        "class_names": [],
        "keypoint_names": ["head", "left_hand", "right_hand", "foot"],
        "skeleton": [[0, 1], [0, 2], [0, 3]],
        "flip_pairs": [["left_hand", "right_hand"]],
        "sigmas": [0.03, 0.06, 0.06, 0.09],
        "input": {
            "channels": "BGR",
            "size_divisibility": 32,
            "min_size": 64,
            "max_size": 256,
            "rule": "shortest_edge",
        },
        "normalisation": {"mean": pytest.approx([103.53, 116.28, 123.675]), "std": [1.0, 1.0, 1.0], "inside": True},
        "flip": False,
        "max_people": 8,
        "precision": "float32",
        "original_shift": 0.0,
        "inputs": ["images", "image_sizes"],
        "outputs": ["boxes", "scores", "classes", "keypoints", "counts"],
        "score_threshold": 0.0,
    }


def test_metadata_of_published_weights_and_of_the_affine_resize(peak_model):
    from dynpose.config import load_config
    from dynpose.methods import registered_weights

    released = next(weights for weights in registered_weights() if weights.licence)
    cfg = load_config("CID/HRNet_W32_140e_release.yaml", ["MODEL.WEIGHTS", released.name])
    text = file_metadata(cfg, peak_model, SCHEMA, max_people=8, precision="int8", class_names=["person"])
    described = json.loads(text)
    assert described["licence"] == released.licence
    assert described["class_names"] == ["person"]
    assert described["input"]["rule"] == {"name": "affine", "multiple": 64}
    assert described["input"]["min_size"] == cfg.INPUT.MIN_SIZE_TEST


def test_torchscript(tmp_path, export, peak_run, peak_model, scene):
    path = tmp_path / "pose.ts"
    assert export(path, "--format", "torchscript", "--images", peak_run.images) == 0
    assert_equals(ExportNetwork(peak_model, max_people=8), RUNNERS["torchscript"](path, "float32"), scene)
    extra = {"dynpose": ""}
    torch.jit.load(str(path), _extra_files=extra)
    assert json.loads(extra["dynpose"])["max_people"] == 8


def test_torch_export(tmp_path, export, peak_run, peak_model, scene):
    path = tmp_path / "pose.pt2"
    # compared here, by the program that is loaded once
    arguments = ("--format", "torch-export", "--images", peak_run.images, "--precision", "bfloat16", "--no-check")
    assert export(path, *arguments) == 0
    extra = {"dynpose": ""}
    run = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["dynpose"])["precision"] == "bfloat16"
    samples = [Sample("", *scene(height, width, cells)) for height, width, cells in SCENES]
    compared = check_file(ExportNetwork(peak_model, max_people=8), run, samples, precision="bfloat16")
    assert [(result.expected, result.found) for result in compared[:4]] == [(0, 0), (1, 1), (4, 4), (8, 8)]


def test_openvino(tmp_path, onnx_file, peak_model, scene):
    pytest.importorskip("openvino")
    from dynpose.export.openvino_file import write_openvino
    from dynpose.runtime.sessions import openvino_core

    path = tmp_path / "pose.xml"
    write_openvino(onnx_file, path, '{"format": 1}', "float32")
    assert_equals(ExportNetwork(peak_model, max_people=8), RUNNERS["openvino"](path, "float32"), scene, NARROW)
    assert openvino_core().read_model(path).get_rt_info("dynpose").astype(str) == '{"format": 1}'


@pytest.mark.parametrize(("precision", "type"), [("float16", "FLOAT16"), ("int8", "INT8")])
def test_reduced_precision(tmp_path, onnx_file, peak_model, scene, precision, type):
    onnx = pytest.importorskip("onnx")
    from dynpose.export.reduced_precision import convert_to_float16, quantize_to_int8

    path = tmp_path / "pose.onnx"
    samples = [Sample("", *scene(height, width, cells)) for height, width, cells in SCENES]
    if precision == "float16":
        convert_to_float16(onnx_file, path)
    else:
        quantize_to_int8(onnx_file, path, iter(samples))
    model = onnx.load(path)
    kind = onnx.TensorProto.DataType.Value(type)
    weights = [each for each in model.graph.initializer if each.data_type == kind]
    assert len(weights) >= 3
    assert {entry.key for entry in model.metadata_props} == {"dynpose"}
    # coordinates are decoded in float32: the toy's offsets are the last convolution
    run = RUNNERS["onnx"](path, precision)
    network = ExportNetwork(peak_model, max_people=8)
    compared = check_file(network, run, samples, precision=precision)
    assert sum(result.matched for result in compared) >= 13
    boxes = [run(sample.images, sample.image_sizes)[0] for sample in samples]
    expected = [network(sample.images, sample.image_sizes)[0] for sample in samples]
    for a, b in zip(boxes[:3], expected[:3]):
        assert torch.equal(a, b)


def test_int8_reports_its_cost(tmp_path, export, onnx_file, peak_run, capsys, monkeypatch):
    path = tmp_path / "pose.onnx"
    # a float32 file like that of the other tests
    monkeypatch.setattr("dynpose.export.exporting.captured", lambda *_: None)
    monkeypatch.setattr("dynpose.export.exporting.write_onnx", lambda _, file, *__: shutil.copy(onnx_file, file))
    assert export(path, "--precision", "int8", "--calibration", peak_run.images, "--no-check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "int8, compared with float32:"
    assert lines[1].startswith(
        "  1 x the config's size, 3 images: 4 people in float32, 4 in the file, 4 the same; keypoi"
    )
    assert lines[2].startswith("  3 x the config's size, 3 images: ")
    assert lines[3].startswith(f"{path}: written")
    assert lines[-1] == "  checked: no"
    assert os.listdir(tmp_path) == ["pose.onnx"]


def test_ap_report(tmp_path, peak_model, peak_run, catalogs):
    from pathlib import Path

    from dynpose.data import register_pose_dataset
    from dynpose.data.any_image import to_bgr
    from dynpose.export.accuracy import InputSize, ap_report

    network = ExportNetwork(peak_model, max_people=8)
    inputs = InputSize(64, 256, 32, "BGR")
    images, annotations = [], []
    for number, file in enumerate(sorted(Path(peak_run.images).iterdir()), start=1):
        pixels = to_bgr(file)
        images.append({"id": number, "file_name": file.name, "height": pixels.shape[0], "width": pixels.shape[1]})
        sample = inputs.sample(pixels)
        found = network(sample.images, sample.image_sizes)
        for points in found[3][0, : int(found[4])]:
            points = (points[:, :2] - 0.5).clamp(0, 60)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 900.0,
                    "bbox": [1, 1, 50, 50],
                    "num_keypoints": 4,
                    "keypoints": [value for x, y in points.tolist() for value in (x, y, 2)],
                }
            )
    category = {"id": 1, "name": "person", "keypoints": list(SCHEMA.names), "skeleton": []}
    file = tmp_path / "annotation.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    register_pose_dataset("of_an_export", file, peak_run.images)

    def elsewhere(images, image_sizes):
        boxes, scores, classes, keypoints, counts = network(images, image_sizes)
        return boxes, scores, classes, keypoints + 40, counts

    lines = ap_report(network, elsewhere, "of_an_export", inputs)
    assert lines[0].startswith("1 x the config's size: keypoint AP 0.00 in the file, ")
    assert float(lines[0].split(", ")[1].split()[0]) > 50
    assert lines[1].startswith("3 x the config's size: keypoint AP ")


def _changed(people, index, change):
    """The people of a result with changes to the rows that count."""
    changed = [each.clone() for each in people]
    changed[index][:, : int(people[4])] = change(changed[index][:, : int(people[4])])
    return tuple(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda people: _changed(people, 1, lambda rows: rows + 0.01),
            r"scores differ by up to 0.01; 0.0001 is allowed",
        ),
        (
            lambda people: _changed(people, 3, lambda rows: rows + 0.02),
            r"100% of the keypoints differ by more than 0.01",
        ),
        (
            lambda people: _changed(people, 3, lambda rows: rows + 50),
            r"PyTorch has 3 people, the file 3; 0 are the same",
        ),
        (lambda people: _changed(people, 2, lambda rows: rows + 1), r"classes differ"),
        (lambda people: _changed(people, 0, lambda rows: rows / 0), r"coordinates or scores that are not finite"),
        (lambda people: (*people[:4], people[4] - 1), r"rows beyond the count are not 0"),
        (
            lambda people: tuple(each[:, :2] if each.ndim > 1 else each for each in people),
            r"the outputs have the shapes",
        ),
    ],
)
def test_a_file_that_disagrees_is_refused(peak_model, scene, change, message):
    network = ExportNetwork(peak_model, max_people=8)
    sample = Sample("a picture", *scene(64, 96, ((1, 1), (5, 7), (3, 4))))
    with pytest.raises(ConfigError, match=f"pose.onnx is not written: .* a picture: .*{message}"):
        check_file(network, lambda *inputs: change(network(*inputs)), [sample], precision="float32", name="pose.onnx")


def test_after_a_disagreement_the_earlier_file_is_unchanged(tmp_path, peak_model, scene, monkeypatch):
    """A trace that has turned the number of people of its example into a constant."""
    path = tmp_path / "pose.ts"
    path.write_text("an earlier file")

    samples = [Sample("one", *scene(64, 96, ((1, 1),))), Sample("two", *scene(64, 96, ((1, 1), (3, 4))))]
    network = ExportNetwork(peak_model, max_people=8)
    monkeypatch.setattr(PeakPose, "detect", _first_person_only(PeakPose.detect))
    with pytest.raises(ConfigError, match=r"pose.ts is not written: it disagrees with PyTorch on two"):
        export_network(network, path, "{}", divisibility=32, samples=samples, format="torchscript", batch=1)
    assert path.read_text() == "an earlier file"
    assert os.listdir(tmp_path) == ["pose.ts"]


def _first_person_only(detect):
    def traced(self, images, image_sizes):
        found = detect(self, images, image_sizes)
        if torch.jit.is_tracing():
            found = type(found)(*(each[:1] for each in found))
        return found

    return traced


def test_samples():
    samples = check_samples([], min_size=64, divisibility=32, channels="BGR")
    sizes = [tuple(sample.image_sizes[0].tolist()) for sample in samples]
    assert (192, 217) in sizes
    assert len({*sizes}) == 6
    for sample in samples:
        assert all(side % 32 == 0 for side in sample.images.shape[-2:])
    picture = np.zeros((100, 150, 3), dtype=np.uint8)
    picture[..., 0] = 200
    samples = check_samples([picture, picture], min_size=80, divisibility=32, channels="RGB")
    assert [sample.image_sizes[0].tolist() for sample in samples] == [[80, 120], [64, 76], [240, 360], [80, 120]]
    assert samples[0].images[0, :, 0, 0].tolist() == [0, 0, 200]


def test_detect_that_can_not_be_captured(peak_model, scene, monkeypatch):
    def detect(self, images, image_sizes):
        if images.sum() > 0:
            raise RuntimeError
        return None

    monkeypatch.setattr(PeakPose, "detect", detect)
    with pytest.raises(ConfigError, match=r"MODEL.META_ARCHITECTURE 'PeakPose': torch.export can't capture detect"):
        captured(
            ExportNetwork(peak_model, 8), [each.repeat(2, *[1] * (each.ndim - 1)) for each in scene(64, 96, ())], 32
        )


def test_config_errors_of_a_model_are_raised(peak_model, scene, monkeypatch):
    def detect(self, images, image_sizes):
        raise ConfigError("TEST.SOFT_OKS_NMS can't be exported")

    monkeypatch.setattr(PeakPose, "detect", detect)
    with pytest.raises(ConfigError, match=r"^TEST.SOFT_OKS_NMS can't be exported$"):
        captured(ExportNetwork(peak_model, 8), scene(64, 96, ()), 32, batch=1)


def test_clip_of_integers_and_scalar_parameters_of_nms():
    """Two boxes overlap by 0.6, the third is apart; the values have the names that exporters give."""
    helper = pytest.importorskip("onnx").helper
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx_ir
    from onnx import TensorProto

    from dynpose.export.onnx_file import _make_portable

    def number(name, value, kind):
        return helper.make_tensor(name, kind, [], [value])

    nodes = [
        helper.make_node("Add", ["x", "val_2"], ["val_0"], name="node_0"),
        helper.make_node("Clip", ["val_0", "val_2", "val_3"], ["val_1"], name="node_1"),
        helper.make_node("Add", ["val_1", "val_2"], ["clipped"], name="node_2"),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "val_4", "val_5"], ["kept"], name="node_3"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.INT64, [3]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 3, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 3]),
        ],
        [
            helper.make_tensor_value_info("clipped", TensorProto.INT64, [3]),
            helper.make_tensor_value_info("kept", TensorProto.INT64, ["n", 3]),
        ],
        [
            number("val_2", 1, TensorProto.INT64),
            number("val_3", 5, TensorProto.INT64),
            number("val_4", 10, TensorProto.INT64),
            number("val_5", 0.5, TensorProto.FLOAT),
        ],
        value_info=[helper.make_tensor_value_info(f"val_{i}", TensorProto.INT64, [3]) for i in (0, 1)],
    )
    model = onnx_ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    _make_portable(model)
    assert "Clip" not in [node.op_type for node in model.graph]
    written = onnx_ir.serde.serialize_model(model)
    nms = next(node for node in written.graph.node if node.op_type == "NonMaxSuppression")
    reshaped = {node.output[0] for node in written.graph.node if node.op_type == "Reshape"}
    assert {*nms.input[2:]} == reshaped
    session = onnxruntime.InferenceSession(written.SerializeToString())
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 6], [20, 20, 30, 30]]], dtype=np.float32)
    scores = np.array([[[0.9, 0.8, 0.7]]], dtype=np.float32)
    clipped, kept = session.run(None, {"x": np.array([-4, 2, 9]), "boxes": boxes, "scores": scores})
    assert clipped.tolist() == [2, 4, 6]
    assert kept[:, 2].tolist() == [0, 2]
