"""Models optimized for inference predict as before, in every precision that is on by default."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from PIL import Image
from small_models import image, one_person, small_model
from tiny_methods import METHODS, tiny_model
from torch import nn

from dynpose import optimize_for_inference
from dynpose.config import ConfigError
from dynpose.engine.fast_inference import resolve_precision
from dynpose.methods import registered_methods
from dynpose.modeling.fcpose.fcpose import FCPose
from dynpose.tools.cli import main

BASE = "configs/FCPose/Base-FCPose.yaml"
TRAINED = Path(__file__).parents[1] / "trained"


@pytest.fixture(scope="module")
def data():
    return [{**image(one_person()), "height": 128, "width": 128}]


def without_learning(model):
    """The model in eval mode, with people everywhere."""
    torch.nn.init.constant_(model.head.box_distances.bias, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return without_learning(small_model(BASE, "MODEL.FCOS.PRIOR_PROB", 0.5, "MODEL.FCOS.POST_NMS_TOPK_TEST", 3))


def predicted(model, data):
    with torch.no_grad():
        return model(data)[0]["instances"]


def test_the_model_itself_is_unchanged(model, data):
    before = copy.deepcopy(model.state_dict())
    for precision in ("float32", "bfloat16"):
        fast = optimize_for_inference(model, precision)
        assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.parameters())
    people, expected = predicted(optimize_for_inference(model, "float32"), data), predicted(model, data)
    assert len(people) == len(expected) == 3
    torch.testing.assert_close(people.scores, expected.scores, rtol=0, atol=1e-4)


def test_weights_are_converted_once_where_autocast_would(model, data):
    fast = optimize_for_inference(model, "bfloat16")
    types = {name: parameter.dtype for name, parameter in fast.named_parameters()}
    assert types["backbone.bottom_up.stem.conv1.weight"] == torch.bfloat16
    # biases are not, and generated networks are computed in float32
    assert types["backbone.bottom_up.stem.conv1.bias"] == torch.float32
    people = predicted(fast, data)
    assert people.scores.dtype == people.pred_keypoints.dtype == people.pred_boxes.tensor.dtype == torch.float32


def test_a_copy_of_an_optimized_model_runs_its_own_weights(model, data):
    fast = optimize_for_inference(model, "bfloat16")
    expected = predicted(fast, data)
    copied = copy.deepcopy(fast)
    torch.testing.assert_close(predicted(copied, data).scores, expected.scores, rtol=0, atol=0)
    torch.nn.init.constant_(copied.head.cls_logits.bias, -100.0)
    assert len(predicted(copied, data)) == 0
    assert len(predicted(fast, data)) == len(expected)


class Capabilities(dict):
    """As of torch.cpu.get_capabilities."""

    def __call__(self):
        return self


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"bf16": True, "architecture": "aarch64"}, "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_where_the_cpu_has_it_and_the_model_is_proven(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", Capabilities(capabilities), raising=False)
    assert resolve_precision("auto", "cpu", FCPose) == expected
    assert resolve_precision("auto", "cpu", nn.Module) == "float32"
    assert resolve_precision("bfloat16", "cpu", nn.Module) == "bfloat16"
    assert resolve_precision("float32", "cpu", FCPose) == "float32"


def test_auto_on_a_gpu(monkeypatch):
    for supported, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, it=supported: it)
        assert resolve_precision("auto", "cuda", FCPose) == expected
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    with pytest.raises(ConfigError, match="an old GPU has no bfloat16; give float16 or float32"):
        resolve_precision("bfloat16", "cuda", FCPose)
    with pytest.raises(ConfigError, match="precision must be one of auto, float32, bfloat16, float16, got 'fp16'"):
        resolve_precision("fp16", "cuda", FCPose)


# of each method that is proven in bfloat16: the config of its trained weights, and their least AP
PROVEN = {
    "FCPose": ("fcpose_synthetic", [], 65),
    "InsPose": (
        "inspose_synthetic",
        [
            *("MODEL.BACKBONE.NAME", "build_fcos_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnet"),
            *("DATASETS.SYNTHETIC.PEOPLE", "[1, 4]", "DATASETS.SYNTHETIC.SCALE", "[0.5, 0.9]"),
            *("DATASETS.SYNTHETIC.CROWDING", "0.5"),
        ],
        25,
    ),
}


def test_what_auto_takes_has_trained_weights():
    proven = {method.name for method in registered_methods() if _proven(method.name)}
    assert proven == set(PROVEN)


def _proven(name):
    return getattr(META_ARCH_REGISTRY.get(name), "proven_precisions", ())


def evaluated(method, precision, folder):
    """Results of trained weights by ``dynpose evaluate``: AP, and the confident people of each image."""
    name, opts, _ = PROVEN[method]
    words = [
        "evaluate",
        "--config-file",
        f"quick/{name}.yaml",
        "--weights",
        str(TRAINED / f"{name}.pth"),
        "--precision",
    ]
    data = {"NUM_VAL": 30, "NUM_TRAIN": 1, "ROOT": folder / "synthetic"}
    opts = [*opts, *(str(word) for key, value in data.items() for word in (f"DATASETS.SYNTHETIC.{key}", value))]
    main([*words, precision, "--output", str(folder / precision), *opts])
    people = {}
    for person in json.loads((folder / precision / "inference" / "coco_instances_results.json").read_text()):
        if person["score"] > 0.3:
            people.setdefault(person["image_id"], []).append(np.reshape(person["keypoints"], (-1, 3))[:, :2])
    return json.loads((folder / precision / "results.json").read_text())["keypoints/AP"], people


@pytest.mark.parametrize("method", PROVEN)
@pytest.mark.usefixtures("clean_run")
def test_a_trained_model_has_the_same_ap_and_poses_in_bfloat16(tmp_path, method):
    """On 30 images, with a chance of 0.3 AP; docs/prediction.md has FCPose's on the 100 of the demo, with 0.1."""
    ap, people = evaluated(method, "float32", tmp_path)
    fast_ap, fast_people = evaluated(method, "bfloat16", tmp_path)
    assert ap > PROVEN[method][2]
    assert fast_ap == pytest.approx(ap, abs=0.4)
    nearest = [
        min((np.linalg.norm(person - other, axis=1) for other in fast_people[image]), key=np.mean)
        for image, found in people.items()
        for person in found
    ]
    assert len(nearest) > 40
    assert (np.concatenate(nearest) < 0.5).mean() > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_the_named_parts_are_compiled_with_symbolic_sizes(method, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    fast = optimize_for_inference(tiny_model(method), "float32", compile=True)
    parts = getattr(type(fast), "dense_parts", ("backbone",))
    assert compiled == [(getattr(fast, name), {"dynamic": True}) for name in parts]
    assert fast.backbone in dict(compiled)


def test_a_run_has_one_precision(small_run, tmp_path, capsys):
    Image.fromarray(np.full((64, 80, 3), 90, np.uint8)).save(tmp_path / "a.png")
    words = ["predict", "--config-file", small_run.config, "--weights", small_run.weights, "--device", "cpu"]
    words += ["--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--no-pictures"]
    assert main([*words, "--precision", "bfloat16"]) == 0
    header = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert header["made_with"]["config"]["--precision"] == "bfloat16"
    assert main([*words, "--precision", "float32", "--resume"]) == 2
    assert "--precision is float32, was bfloat16: --resume needs" in capsys.readouterr().err
