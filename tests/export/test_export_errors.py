"""What `dynpose export` refuses, each in one line; and tracing a model without it."""

import signal
import sys

import pytest
import torch
from peak_pose import peak_config
from small_models import small_model

from dynpose.config import ConfigError
from dynpose.export.comparing import TOLERANCES, compare
from dynpose.export.exporting import FORMATS, check_arguments
from dynpose.export.packages import require
from dynpose.modeling.base_models import refuse_to_be_traced
from dynpose.tools.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "torchscript"], "the name of a file of --format torchscript ends in .ts"),
        (
            ["--precision", "bfloat16"],
            "--format onnx has float32, float16, int8 only; give --format torch-export or op",
        ),
        (["--precision", "int8"], "--precision int8 needs --calibration, a folder of images"),
        (["--calibration", "."], "--calibration is for --precision int8; float32 needs none"),
        (["--annotations", "a.json"], "--annotations goes with --calibration"),
        (["--opset", "22"], "--opset must be one of 18, 19, 20, 21, got 22"),
        (["--flip"], "--flip: MODEL.META_ARCHITECTURE 'PeakPose' has no test-time flip"),
        (["--images", "no/such/folder"], "no/such/folder"),
        (["--opset", "18", "TEST.AUG.ENABLED", "True"], "TEST.AUG.ENABLED is True"),
    ],
)
def test_arguments(tmp_path, export, capsys, arguments, message):
    path = tmp_path / "new" / "pose.onnx"
    assert export(path, *arguments) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.startswith("dynpose: error: ")
    assert line.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_leaves_an_earlier_file_and_nothing_else(tmp_path, export, monkeypatch, capsys, number, code, word):
    def write(network, path, *_):
        path.write_text("half a file")
        signal.raise_signal(number)

    path = tmp_path / "pose.ts"
    path.write_text("an earlier file")
    monkeypatch.setattr("dynpose.export.exporting.traced", lambda *_: None)
    monkeypatch.setattr("dynpose.export.exporting.write_torchscript", write)
    assert export(path, "--format", "torchscript") == code
    assert capsys.readouterr().err == f"dynpose: {word}\n"
    assert [file.name for file in tmp_path.iterdir()] == ["pose.ts"]
    assert path.read_text() == "an earlier file"


def test_a_folder_that_can_not_be_made(tmp_path, export, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert export(tmp_path / "file" / "pose.ts", "--format", "torchscript") == 2
    line = capsys.readouterr().err
    assert line.startswith("dynpose: error: ")
    assert str(tmp_path / "file") in line
    assert line.count("\n") == 1


def test_weights_that_are_exported(tmp_path, capsys):
    assert main(["export", "--weights", "pose.onnx", "--output", str(tmp_path / "a.onnx")]) == 2
    assert "pose.onnx: it is an exported file already; give the checkpoint that it is of" in capsys.readouterr().err


def test_a_diverged_model_is_named():
    """Its NaN scores are no fault of the file."""
    people = (torch.zeros(1, 2, 4), torch.full((1, 2), torch.nan), torch.zeros(1, 2), torch.zeros(1, 2, 3, 3))
    result = (*people, torch.tensor([2]))
    with pytest.raises(ValueError, match="the model's own scores are not finite in PyTorch: it has diverged"):
        compare(result, result)


def test_a_file_with_nan_scores_is_at_fault():
    ours = (torch.zeros(1, 2, 4), torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, 3, 3), torch.tensor([2]))
    (result,) = compare(ours, (ours[0], torch.full((1, 2), torch.nan), *ours[2:]))
    assert result.disagreement(TOLERANCES["float32"]) == (
        "the file's people have coordinates or scores that are not finite"
    )


def test_keypoints_far_outside_may_move_more():
    """Float32 numbers are 0.001 apart at 9,000 pixels, where random weights put keypoints of a small image."""
    people = (torch.zeros(1, 1, 4), torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1, 3, 3), torch.tensor([1]))
    far, moved, too_far = (people[3] + shift for shift in (9000, 9000.1, 9000.2))
    tolerance = TOLERANCES["float32"]
    ours = (*people[:3], far, people[4])
    for keypoints, is_refused in ((moved, False), (too_far, True)):
        (result,) = compare(ours, (*people[:3], keypoints, people[4]))
        assert bool(result.disagreement(tolerance, side=500)) == is_refused
    (result,) = compare(people, (*people[:3], people[3] + 0.02, people[4]))
    assert "100% of the keypoints differ by more than 0.01 pixels" in result.disagreement(tolerance, side=500)


def test_folder_without_images(tmp_path, export, capsys):
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / "pose.onnx", "--precision", "int8", "--calibration", tmp_path / "empty") == 2
    assert "empty" in capsys.readouterr().err


def test_unknown_names(tmp_path):
    with pytest.raises(ConfigError, match="--format must be one of onnx, torch-export, openvino, torchscript, got 'x'"):
        check_arguments("x", "float32", "a.onnx")
    with pytest.raises(ConfigError, match="--precision must be one of float32, float16, bfloat16, int8, got 'int4'"):
        check_arguments("onnx", "int4", "a.onnx")
    with pytest.raises(ConfigError, match=r"--output .*: it is a folder; name the file to write in it"):
        check_arguments("onnx", "float32", tmp_path)
    with pytest.raises(SystemExit):
        main(["export", "--weights", "a.pth", "--output", "a.onnx", "--format", "x"])


def test_command_line_names_the_formats():
    """The command states them itself, so that its help does not import PyTorch."""
    from dynpose.export.exporting import PRECISIONS
    from dynpose.tools import export

    assert (*FORMATS,) == export._FORMATS
    assert PRECISIONS == export._PRECISIONS


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnxscript", (), "dynpose[export]"),
        ("onnxruntime", (), "dynpose[export]"),
        ("openvino", ("--format", "openvino"), "dynpose[openvino]"),
    ],
)
def test_missing_package(tmp_path, package, extra, arguments, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="needs the package"):
        require(package, "it")
    with pytest.raises(ConfigError) as error:
        require(f"{package}.part", "an ONNX file", extra.removeprefix("dynpose[").removesuffix("]"))
    assert f"an ONNX file needs the package {package}" in str(error.value)
    assert f"pip install '{extra}'" in str(error.value)


def test_model_without_a_limit_needs_the_argument(tmp_path, peak_run, capsys):
    assert main(["export", "--weights", peak_run.weights, "--output", str(tmp_path / "a.onnx")]) == 2
    assert "'PeakPose' has no key that limits the people in an image: give --max-people" in capsys.readouterr().err


def test_limit_of_a_method(small_run, capsys, tmp_path):
    given = ["--weights", small_run.weights, "--output", str(tmp_path / "a.onnx"), "--max-people", "101"]
    assert main(["export", *given]) == 2
    assert "MODEL.FCOS.POST_NMS_TOPK_TEST keeps at most 3 people; raise it too" in capsys.readouterr().err


def test_model_without_detect():
    from dynpose.export import ExportNetwork

    with pytest.raises(
        ConfigError, match=r"MODEL.META_ARCHITECTURE 'Linear' can't be exported: it has no method detect"
    ):
        ExportNetwork(torch.nn.Linear(1, 1), 8)
    with pytest.raises(ValueError, match="max_people"):
        ExportNetwork(torch.nn.Linear(1, 1), 0)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    from dynpose.modeling.build import build_model

    return [build_model(peak_config()).eval(), small_model().eval()]


class OfTensors(torch.nn.Module):
    """A model whose inputs and outputs are tensors, as exporters require."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model([{"image": image}])[0]["instances"].pred_keypoints


@pytest.mark.parametrize(
    "trace",
    [
        lambda model, image: torch.jit.trace(model, (image,)),
        lambda model, image: torch.export.export(model, (image,), strict=False),
        lambda model, image: torch.onnx.export(model, (image,), dynamo=False, f="unused.onnx"),
    ],
    ids=["jit.trace", "export", "onnx"],
)
def test_a_model_as_a_whole_refuses_to_be_traced(models, trace):
    for model in models:
        with pytest.raises(ConfigError, match=r"can't be traced or exported as a whole.*`dynpose export`"):
            trace(OfTensors(model).eval(), torch.zeros(3, 64, 64))


def test_torch_compile_is_not_refused():
    class Refusing(torch.nn.Module):
        def forward(self, x):
            refuse_to_be_traced(self)
            return x + 1

    assert torch.compile(Refusing(), backend="eager")(torch.zeros(2)).tolist() == [1, 1]
