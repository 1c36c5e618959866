"""projects/deployment: the service, Triton's configuration, and what the browser page computes itself."""

import importlib.util
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_files import BOXES, CLASSES, METADATA, POINTS, SCORES, write_exported

from dynpose.runtime.resizing import ShortestEdge

PROJECT = Path(__file__).parents[2] / "projects" / "deployment"


def load(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, PROJECT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def service(pose):
    """The address of a running service."""
    module = load("service/service.py")
    module.Handler.log_message = lambda *arguments: None
    with module.PoseServer(("127.0.0.1", 0), pose) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def request(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
        return json.load(answer)


def test_the_service_answers_with_the_people_of_the_runtime(service, pose, photo_file):
    people = pose(photo_file)
    found = request(f"{service}/people", photo_file.read_bytes())
    assert (found["width"], found["height"]) == (80, 60)
    assert [person["class"] for person in found["people"]] == ["person", "dog"]
    np.testing.assert_array_equal([person["keypoints"] for person in found["people"]], people.pred_keypoints)
    np.testing.assert_array_equal([person["box"] for person in found["people"]], people.pred_boxes)
    assert len(request(f"{service}/people?score=0.7", photo_file.read_bytes())["people"]) == 1
    described = request(f"{service}/model")
    assert described["keypoint_names"] == METADATA["keypoint_names"]
    assert described["skeleton"] == METADATA["skeleton"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/people", b"no image", 415, "the image"),
        ("/people", b"", 413, "send 1 to"),
        ("/people?score=high", b"x", 400, "score as a number"),
        ("/others", b"x", 404, "POST /people"),
        ("/", None, 404, "GET /model"),
    ],
)
def test_what_the_service_refuses(service, path, body, status, message):
    with pytest.raises(urllib.error.HTTPError) as error:
        request(service + path, body)
    assert error.value.code == status
    assert message in json.load(error.value)["error"]


@pytest.mark.parametrize("batch", ["B", 2])
def test_tritons_configuration_has_the_tensors_of_the_file(batch, tmp_path):
    file = write_exported(tmp_path / "any.onnx", batch=batch)
    path = load("triton/model_repository.py").write_repository(file, tmp_path / "models", "pose", 8)
    text = path.read_text()
    assert re.findall(r"max_batch_size: (\d+)", text) == ["8" if batch == "B" else "0"]
    found = re.findall(r'(input|output) \[ \{ name: "(\w+)" data_type: TYPE_(\w+) dims: (\[.*?\])', text)
    graph = onnx.load(file).graph
    types = {onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.INT64: "INT64"}
    expected = []
    for kind, value in (*(("input", v) for v in graph.input), *(("output", v) for v in graph.output)):
        tensor = value.type.tensor_type
        sides = [side.dim_value or -1 for side in tensor.shape.dim][1 if batch == "B" else 0 :]
        expected.append((kind, value.name, types[tensor.elem_type], str(sides or [1])))
    assert found == expected
    # its text is quoted as in JSON
    quoted = re.search(r'key: "dynpose" value \{ string_value: (".*") \}', text)[1]
    assert json.loads(json.loads(quoted)) == METADATA
    assert (path.parent / "1" / "model.onnx").read_bytes() == file.read_bytes()
    assert ("dynamic_batching" in text) == (batch == "B")
    assert text.count("reshape { shape: [] }") == (batch == "B")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_browsers_module_reads_and_resizes_as_the_runtime(exported, tmp_path):
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (50, 33), (64, 64), (37, 301), (7, 5)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for index, image in enumerate(images):
        rgba = np.concatenate([image, np.full((*image.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
        (tmp_path / str(index)).write_bytes(rgba.tobytes())
    (tmp_path / "program.mjs").write_text(f"""
import {{ readFileSync, writeFileSync }} from "node:fs";
import {{ describe, inputSize, resized }} from {json.dumps((PROJECT / "browser" / "pose.mjs").as_uri())};
const {{ input, ...described }} = describe(readFileSync({json.dumps(str(exported))}), "pose.onnx");
const found = {json.dumps(sizes)}.map(([height, width], index) => {{
  const [newHeight, newWidth] = inputSize(input, height, width);
  const image = {{ data: readFileSync(String(index)), height, width }};
  writeFileSync(`${{index}}.out`, resized(image, newHeight, newWidth).data);
  return [newHeight, newWidth];
}});
console.log(JSON.stringify([{{ input, ...described }}, found]));
""")
    done = subprocess.run(["node", "program.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    described, found = json.loads(done.stdout)
    assert described == METADATA
    for index, (image, size) in enumerate(zip(images, found, strict=True)):
        expected, _ = ShortestEdge(64, 100)(image)
        pixels = np.frombuffer((tmp_path / f"{index}.out").read_bytes(), dtype=np.uint8).reshape(*size, 4)
        np.testing.assert_array_equal(pixels[..., :3], expected)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_browsers_module_maps_people_back_as_the_runtime(pose, photo, tmp_path):
    """The network's outputs by hand: two people in the image, a third outside, and a row that does not count."""
    width, height = 85, 64
    (tmp_path / "program.mjs").write_text(f"""
import {{ people }} from {json.dumps((PROJECT / "browser" / "pose.mjs").as_uri())};
const outputs = [{(BOXES * np.tile([width, height], 2)).flatten().tolist()}, {SCORES.tolist()},
  BigInt64Array.from({CLASSES.tolist()}.map(BigInt)), {(POINTS * [width, height]).flatten().tolist()}, [3n]];
const xyc = [];
for (let i = 0; i < outputs[3].length; i += 2) xyc.push(outputs[3][i], outputs[3][i + 1], 0.5);
const values = [Float32Array.from(outputs[0]), outputs[1], outputs[2], Float32Array.from(xyc), outputs[4]];
const shifted = (shift) => people({{ ...{json.dumps(METADATA)}, ...shift }}, values, {{ width: 80, height: 60 }},
  [80 / {width}, 60 / {height}]);
console.log(JSON.stringify([shifted({{}}), shifted({{ original_shift: 0.5 }})]));
""")
    done = subprocess.run(["node", "program.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found, shifted = json.loads(done.stdout)
    expected = pose(photo)
    assert [person["name"] for person in found] == ["person", "dog"]
    np.testing.assert_allclose([person["box"] for person in found], expected.pred_boxes, atol=1e-4)
    points = np.array([person["keypoints"] for person in found])
    np.testing.assert_allclose(points[..., :2], expected.pred_keypoints[..., :2], atol=1e-4)
    moved = np.array([person["keypoints"] for person in shifted])
    np.testing.assert_allclose(moved - points, [[[0.5, 0.5, 0]] * 3] * 2, atol=1e-9)
    # the second box reaches the right edge
    assert shifted[1]["box"] == pytest.approx([40.5, 0.5, 80, 42.5], abs=1e-3)
