"""Half precision against float32 for every method, the gradient scaler, and the compiled backbone."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
from small_models import small_config, small_model
from tiny_methods import METHODS, global_batch, tiny_config, tiny_model
from torch import nn

from dynpose.checkpoint.writing import write_checkpoint
from dynpose.config import ConfigError, load_config
from dynpose.engine import ModelEMA, PoseTrainer, TrainingStep, main
from dynpose.engine.precision import Precision, compile_dense_parts
from dynpose.modeling.querypose import querypose

pytestmark = pytest.mark.usefixtures("clean_run")

DTYPES = [torch.bfloat16, torch.float16]
# CPUs without instructions for bfloat16 take most of the time in the backbone
NARROW = [
    *("MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
]


def losses_and_gradients(model, dtype, device="cpu", scale=1.0):
    model.zero_grad()
    with EventStorage(), Precision(device, dtype).autocast():
        losses = model(global_batch())
        total = sum(losses.values())
    (scale * total).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return losses, torch.cat(gradients).double() / scale


def assert_close_to_float32(method, dtype, device, monkeypatch):
    # QueryPose's boxes depend on the rounding of the narrow network's maps
    narrow = NARROW if device == "cpu" and method != "QueryPose" else ()
    model = tiny_model(method, "MODEL.DEVICE", device, *narrow, device=device)
    # a box that is rounded may be another person's match: the matches are float32's
    match = querypose.match_stages
    matches = []

    def match_once(*args, **kwargs):
        if not matches:
            matches.append(match(*args, **kwargs))
        return matches[0]

    monkeypatch.setattr(querypose, "match_stages", match_once)
    expected, expected_gradients = losses_and_gradients(model, None, device)
    losses, gradients = losses_and_gradients(model, dtype, device, scale=16.0)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        # losses are computed in float32
        assert loss.dtype == torch.float32, name
        assert loss.isfinite(), name
    assert sum(losses.values()).item() == pytest.approx(sum(expected.values()).item(), rel=0.05)
    assert gradients.isfinite().all()
    assert torch.cosine_similarity(gradients, expected_gradients, dim=0) > 0.95


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_close_to_float32(method, dtype, monkeypatch):
    assert_close_to_float32(method, dtype, "cpu", monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_close_to_float32_on_a_gpu(method, dtype, monkeypatch):
    assert_close_to_float32(method, dtype, "cuda", monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_in_float32(method, dtype):
    model = tiny_model(method, *NARROW).eval()
    with torch.no_grad(), Precision("cpu", dtype).autocast():
        (people,) = (output["instances"] for output in model([{**global_batch()[0], "height": 256, "width": 256}]))
    for values in (people.pred_keypoints, people.scores, people.pred_boxes.tensor):
        assert values.dtype == torch.float32
        assert values.isfinite().all()


def train(method, precision, iterations, device="cpu", guard=None):
    model = tiny_model(method, "MODEL.DEVICE", device, device=device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    step = TrainingStep(model, [global_batch()] * iterations, optimizer, precision=precision, guard=guard)
    with EventStorage():
        for step.iter in range(iterations):
            step.run_step()
    return model, step


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_weights_stay_finite_on_a_gpu(method, dtype):
    # the scaler skips the first steps until it has found its scale
    model, _ = train(method, Precision("cuda", dtype), 20, "cuda")
    before = tiny_model(method, "MODEL.DEVICE", "cuda", device="cuda").state_dict()
    after = model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


# Not 64: in half precision on the CPU, torch 2.11 leaves part of the weights' gradient of a 3x3 convolution with stride
# 2 of a 1 x 1 map, such as P7's in an image of 64 pixels, to the previous content of the memory.
SIZE = "[160,160]"


def run_of_quick_config(method, dtype, device, folder, iterations, more_opts=()):
    """The metrics of a run's iterations, and its results."""
    opts = [
        *("MODEL.DEVICE", device, "OUTPUT_DIR", str(folder), "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype),
        *("DATASETS.SYNTHETIC.NUM_TRAIN", "4", "DATASETS.SYNTHETIC.NUM_VAL", "2", "DATALOADER.NUM_WORKERS", "0"),
        *("DATASETS.SYNTHETIC.IMAGE_SIZE", SIZE, "INPUT.MIN_SIZE_TRAIN", "(160,)", "INPUT.MIN_SIZE_TEST", "160"),
        *("INPUT.AFFINE.SIZE", SIZE, "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", str(iterations)),
        *("TEST.AMP", "True", *more_opts),
    ]
    config = f"configs/quick/{method}_synthetic.yaml"
    results = main(SimpleNamespace(config_file=config, opts=opts, eval_only=False, resume=False))
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()], results


QUICK = ["fcpose", "inspose", "cid", "querypose"]


@pytest.mark.parametrize("method", QUICK)
def test_quick_configs_run_in_bfloat16(tmp_path, method):
    metrics, results = run_of_quick_config(method, "bfloat16", "cpu", tmp_path, 2, NARROW)
    assert all(math.isfinite(value) for value in metrics[0].values())
    assert "AP" in results["keypoints"]
    weights = torch.load(tmp_path / "model_final.pth", weights_only=False)["model"]
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", QUICK)
def test_quick_configs_run_in_half_precision_on_a_gpu(tmp_path, method, dtype):
    metrics, results = run_of_quick_config(method, dtype, "cuda", tmp_path, 20)
    assert all(math.isfinite(value) for value in metrics[0].values())
    assert "AP" in results["keypoints"]


class Overflowing(nn.Module):
    """Its gradient is finite, but too large for float16 once it is scaled by more than 8."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        # the gradient passes a float16 tensor
        return {"loss": (self.weight.half() * 1.0).float() * 5000 * batch[0]}


class Guard:
    def __init__(self):
        self.asked = 0

    def check_losses(self, losses, batch):
        return True

    def check_gradients(self, model):
        self.asked += 1
        return bool(model.weight.grad.isfinite())


@pytest.mark.parametrize("guard", [None, Guard()], ids=["no guard", "guard"])
def test_the_scaler_finds_its_scale_and_skips_steps_meanwhile(guard):
    """5000 times 16 is more than float16's 65504, times 8 is not: from 64, two steps are skipped."""
    model = Overflowing()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    step = TrainingStep(model, [[1.0]] * 4, optimizer, precision=Precision("cpu", torch.float16), guard=guard)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    weights = []
    with EventStorage():
        for step.iter in range(4):
            step.run_step()
            weights.append(model.weight.item())
    assert step.grad_scaler.get_scale() == 8.0
    assert weights[:3] == [1.0] * 3
    assert weights[3] == pytest.approx(0.5)
    # the overflow is the scaler's own business
    assert guard is None or guard.asked == 0


def test_the_guard_is_asked_where_the_scale_can_not_be_lowered():
    model, guard = Overflowing(), Guard()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    batches = [[100.0], [1.0]]
    step = TrainingStep(model, batches, optimizer, precision=Precision("cpu", torch.float16), guard=guard)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with EventStorage():
        step.run_step()
        assert (guard.asked, model.weight.item()) == (1, 1.0)
        step.run_step()
    assert (guard.asked, model.weight.item()) == (2, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("opts", "enabled", "dtype"),
    [
        ([], None, None),
        (["SOLVER.AMP.ENABLED", True], None, torch.float16),
        (["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"], None, torch.bfloat16),
        (["SOLVER.AMP.ENABLED", True], False, None),
        (["SOLVER.AMP.DTYPE", "bfloat16"], True, torch.bfloat16),
    ],
)
def test_the_config(opts, enabled, dtype):
    precision = Precision.from_config(tiny_config("FCPose", *opts), enabled)
    assert precision == Precision("cpu", dtype)
    assert precision.grad_scaler().is_enabled() is (dtype is torch.float16)


def test_a_type_that_is_none():
    with pytest.raises(ConfigError, match=r"SOLVER\.AMP\.DTYPE must be 'float16' or 'bfloat16', got 'fp16'"):
        Precision.from_config(tiny_config("FCPose", "SOLVER.AMP.DTYPE", "fp16"))


def test_a_gpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    opts = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16", "MODEL.DEVICE", "cuda"]
    with pytest.raises(ConfigError, match="which Old GPU does not support"):
        Precision.from_config(tiny_config("FCPose", *opts))


@pytest.mark.parametrize("amp", [False, True])
def test_evaluation_under_autocast(monkeypatch, amp):
    seen = []
    monkeypatch.setattr(DefaultTrainer, "test", lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    PoseTrainer.test(tiny_config("FCPose", "TEST.AMP", amp, "SOLVER.AMP.DTYPE", "bfloat16"), None)
    assert seen == [amp]


def features_of(model):
    images = model.preprocess_image(global_batch())
    with torch.no_grad():
        return model.backbone(images.tensor)


def assert_compiles(model, tolerance, **kwargs):
    names = list(model.state_dict())
    expected = features_of(model)
    compile_dense_parts(model, **kwargs)
    for name, values in features_of(model).items():
        torch.testing.assert_close(values, expected[name], rtol=tolerance, atol=tolerance)
    assert list(model.state_dict()) == names


def test_a_compiled_backbone_keeps_its_names():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    assert_compiles(tiny_model("FCPose").eval(), 0.0, backend=backend)
    assert compiled


def test_the_average_of_a_compiled_model_is_plain():
    model = small_model()
    compile_dense_parts(model, backend="eager")
    ema = ModelEMA(model, 0.5)
    ema.update(model)
    assert list(ema.model.state_dict()) == list(small_model().state_dict())
    assert ema.model.backbone._compiled_call_impl is None


def test_config_files_of_old_runs_still_load(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("MODEL:\n  COMPILE_BACKBONE: true\n")
    assert not load_config(file).SOLVER.COMPILE


def test_the_config_compiles_the_dense_parts(monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: calls.append((self, kwargs)))
    model = PoseTrainer.build_model(small_config("configs/FCPose/Base-FCPose.yaml", "SOLVER.COMPILE", True))
    assert [part for part, _ in calls] == [model.backbone, model.head, model.basis]
    assert all(options["dynamic"] for _, options in calls)
    calls.clear()
    model = PoseTrainer.build_model(small_config("configs/CID/Base-CID.yaml", "SOLVER.COMPILE", True))
    assert [part for part, _ in calls] == [model.backbone]


@pytest.mark.parametrize(
    ("version", "training", "threads"), [("2.11.0+cpu", True, 1), ("2.14.0", True, None), ("2.11.0", False, None)]
)
def test_generated_code_has_one_thread_where_its_backward_pass_is_wrong(monkeypatch, version, training, threads):
    """On several threads, PyTorch 2.11 ends the process in the backward pass of FCPose R-50 (512 x 736)."""
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: calls.append(kwargs))
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    compile_dense_parts(tiny_model("FCPose"), training=training)
    assert {options.get("options", {}).get("cpp.threads") for options in calls} == {threads}
    # PyTorch knows the option: else it raises an error
    torch.compile(nn.Identity(), **calls[0])


def test_channels_last_changes_neither_losses_nor_files(tmp_path):
    """A step in that layout gives the same numbers up to rounding, and its file is in the default layout."""
    cfg = small_config("configs/FCPose/Base-FCPose.yaml", "SOLVER.CHANNELS_LAST", True)
    model = PoseTrainer.build_model(cfg)
    weights = {name: value for name, value in model.state_dict().items() if value.dim() == 4}
    assert any(not value.is_contiguous() for value in weights.values())
    write_checkpoint(str(tmp_path / "weights.pth"), {"model": model.state_dict()})
    loaded = torch.load(tmp_path / "weights.pth", weights_only=True)["model"]
    assert all(value.is_contiguous() for value in loaded.values())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    image = torch.rand(1, 3, 64, 64) * 255
    plain = PoseTrainer.build_model(small_config("configs/FCPose/Base-FCPose.yaml"))
    plain.load_state_dict(loaded)
    features = [each.eval().backbone(image / 64) for each in (model, plain)]
    for name, values in features[0].items():
        torch.testing.assert_close(values, features[1][name], rtol=1e-3, atol=1e-3)


def test_a_model_without_a_backbone():
    with pytest.raises(ConfigError, match=r"SOLVER\.COMPILE is True, but Linear has no module named backbone"):
        compile_dense_parts(nn.Linear(1, 1))


@pytest.mark.gpu
def test_a_compiled_backbone_on_a_gpu():
    assert_compiles(tiny_model("FCPose", "MODEL.DEVICE", "cuda", device="cuda").eval(), 1e-2)
