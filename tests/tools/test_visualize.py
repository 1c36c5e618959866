"""`dynpose visualize` on each method's quick model, what it says of wrong arguments, and where its people are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from small_models import small_config

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.config import ConfigError, load_config
from dynpose.data import COCO_PERSON, schema_to_cfg
from dynpose.engine.figures import PLAIN_INFERENCE, FigureDrawer
from dynpose.engine.predictor import PosePredictor
from dynpose.methods import find_method
from dynpose.tools.cli import main
from dynpose.utils.intermediate import collect_intermediates

EVERYWHERE = ["MODEL.FCOS.PRIOR_PROB", "0.5", "MODEL.FCOS.POST_NMS_TOPK_TEST", "3"]
# with random weights, people are found everywhere
QUICK = {
    "fcpose": EVERYWHERE,
    "inspose": EVERYWHERE,
    "cid": ["MODEL.CID.SCORE_THRESH", "0.0", "MODEL.CID.MAX_PROPOSALS", "4"],
    "querypose": ["MODEL.QUERYPOSE.NUM_QUERIES", "4"],
}
FIGURES = {
    "fcpose": ["heatmaps", "people", "offsets"],
    "inspose": ["heatmaps", "people", "disk_offsets"],
    "cid": ["centers", "recalibration", "channels", "heatmaps"],
    "querypose": ["attention", "stages", "density"],
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def saved(config_file, opts, folder):
    """Weights of a random model, beside its config."""
    cfg = load_config(config_file, [*opts, "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, COCO_PERSON)
    torch.manual_seed(0)
    PoseCheckpointer(build_model(cfg), str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "model_final.pth"


@pytest.mark.parametrize("method", QUICK)
def test_all_figures_of_a_quick_model(method, photo, tmp_path, capsys):
    weights = saved(f"configs/quick/{method}_synthetic.yaml", QUICK[method], tmp_path)
    words = ["visualize", "--weights", str(weights), "--input", str(photo), "--device", "cpu"]
    assert main([*words, "--what", "all", "--output", str(tmp_path / "figure.png")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(FIGURES[method])
    for name, line in zip(FIGURES[method], printed):
        path = tmp_path / f"figure-{name}.png"
        with Image.open(path) as picture:
            assert line == f"{path}: {name}, {picture.width} x {picture.height} pixels"
            assert min(picture.size) > 200


def test_one_figure_and_the_list(small_run, photo, tmp_path, capsys):
    words = ["visualize", "--weights", small_run.weights, "--device", "cpu"]
    assert main([*words, "--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "figures of FCPose:"
    assert [line.split(":")[0].strip() for line in printed[1:]] == FIGURES["fcpose"]
    assert main([*words, "--list", "MODEL.FCPOSE.REFINEMENT", "none"]) == 0
    assert "not with this config: MODEL.FCPOSE.REFINEMENT has no offsets" in capsys.readouterr().out.splitlines()[-1]
    output = tmp_path / "figure.jpg"
    assert main([*words, "--input", str(photo), "--what", "heatmaps", "--person", "3", "--output", str(output)]) == 0
    with Image.open(output) as picture:
        assert picture.format == "JPEG"
    assert [path.name for path in tmp_path.iterdir()] == ["figure.jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--what": "masks"}, "--what masks: FCPose has no such figure; known are heatmaps, people, offsets and all"),
        ({"--person": "7"}, "--person 7: the model finds 3 people in street.png; give a rank from 1 to 3"),
        (
            {"--input": "missing.jpg"},
            "--input missing.jpg: no such file; give one image, by its file or http(s) address",
        ),
        ({"--input": "."}, "--input .: a folder; give one image"),
        ({"--what": None, "--output": None}, "--what and --output missing: give an image, figures and a file, or"),
        ({"--weights": "model.onnx"}, "an exported file gives only the people; give the checkpoint that it is of"),
        ({"--weights": "no_such_weights"}, "no_such_weights"),
    ],
)
def test_wrong_arguments(small_run, photo, tmp_path, capsys, changes, message):
    output = tmp_path / "figure.png"
    given = {"--weights": small_run.weights, "--input": photo, "--what": "heatmaps", "--output": output, **changes}
    words = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    assert main(["visualize", "--device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_words_that_are_no_overrides(small_run, photo, tmp_path, capsys):
    """Such as a shell's list of files."""
    words = ["visualize", "--weights", small_run.weights, "--what", "all", "--output", str(tmp_path / "figure.png")]
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    assert main([*words, "--input", str(photo), str(other)]) == 2
    assert f"{other}: --input takes one image" in capsys.readouterr().err
    assert main([*words, "--input", str(photo), "MODEL.FCPOSE.REFINEMENT"]) == 2
    assert "MODEL.FCPOSE.REFINEMENT: overrides of the config are pairs, KEY VALUE\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--score-threshold", "0,5"), "must be a finite number, got '0,5'"),
        (("--score-threshold", "nan"), "must be a finite number, got 'nan'"),
        (("--person", "first"), "must be a whole number, got 'first'"),
        (("--person", "0"), "must be at least 1, got 0"),
    ],
)
def test_wrong_numbers(option, message, capsys):
    with pytest.raises(SystemExit):
        main(["visualize", "--weights", "w.pth", *option])
    assert message in capsys.readouterr().err


def test_figures_that_all_leaves_out(small_run, photo, tmp_path, capsys):
    words = ["visualize", "--weights", small_run.weights, "--device", "cpu", "--input", str(photo), "--what", "all"]
    output = str(tmp_path / "figure.png")
    assert main([*words, "--output", output, "MODEL.FCPOSE.REFINEMENT", "none"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure-heatmaps.png", "figure-people.png"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("offsets: left out, MODEL.FCPOSE.REFINEMENT has no offsets")


@pytest.mark.parametrize("output", ["figure.gif", "no_folder/figure.png", "."])
def test_wrong_output(small_run, photo, output, capsys):
    words = ["visualize", "--weights", small_run.weights, "--input", str(photo), "--what", "all", "--output", output]
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    assert output in capsys.readouterr().err


class TestDrawer:
    def predictor(self, config_file, *opts, tmp_path):
        cfg = small_config(config_file, *opts, *PLAIN_INFERENCE, "INPUT.MIN_SIZE_TEST", 64)
        torch.manual_seed(0)
        model = build_model(cfg)
        PoseCheckpointer(model, str(tmp_path)).save("model_final")
        cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
        return PosePredictor(cfg, precision="float32")

    @pytest.mark.parametrize(
        "config",
        [
            ("configs/FCPose/Base-FCPose.yaml", *EVERYWHERE),
            (
                *("configs/InsPose/R_50_3x_release.yaml", *EVERYWHERE),
                *("MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS", [0, 1, 2, 3, 0, 1, 2, 3, 0]),
            ),
            ("configs/quick/cid_small.yaml", *QUICK["cid"], "INPUT.AFFINE_RESIZE_TEST", True),
        ],
    )
    def test_people_are_where_the_predictor_finds_them(self, config, photo, tmp_path):
        """In an image that is resized, also of a model that works in pixel indices, or warped."""
        predictor = self.predictor(*config, tmp_path=tmp_path)
        scene = FigureDrawer(predictor)._scene(str(photo), 0, 0.3)
        assert ("to_original" in predictor.prepare(str(photo))) == ("INPUT.AFFINE_RESIZE_TEST" in config)
        with collect_intermediates() as values:
            people = predictor(str(photo))
        torch.testing.assert_close(values["heatmaps"], scene.values["heatmaps"])
        assert len(people) == len(scene.people.scores) > 0
        assert scene.name == "street.png"
        assert scene.image.shape == (60, 90, 3)
        np.testing.assert_allclose(
            scene.on_image(scene.people.keypoints[..., :2]), people.pred_keypoints[..., :2].numpy(), rtol=0, atol=1e-3
        )

    def test_augmentation_is_refused(self, photo, tmp_path):
        predictor = self.predictor("configs/FCPose/Base-FCPose.yaml", tmp_path=tmp_path)
        predictor.cfg.TEST.SOFT_OKS_NMS.METHOD = "linear"
        with pytest.raises(ConfigError, match="set them to False and"):
            FigureDrawer(predictor)

    def test_other_precisions_are_refused(self, tmp_path):
        predictor = self.predictor("configs/FCPose/Base-FCPose.yaml", tmp_path=tmp_path)
        predictor.precision = "bfloat16"
        with pytest.raises(ConfigError, match=r'computes in bfloat16, .*: make it with precision="float32"'):
            FigureDrawer(predictor)

    def test_an_address_in_a_caption_has_no_query(self, photo, tmp_path, monkeypatch):
        predictor = self.predictor("configs/FCPose/Base-FCPose.yaml", *EVERYWHERE, tmp_path=tmp_path)
        monkeypatch.setattr("dynpose.engine.figures.to_bgr", lambda image: np.zeros((60, 90, 3), np.uint8))
        scene = FigureDrawer(predictor)._scene("https://example.org/a/street.jpg?token=secret", 0, 0.3)
        assert scene.name == "street.jpg"

    def test_a_diverged_model(self, photo, tmp_path):
        predictor = self.predictor("configs/FCPose/Base-FCPose.yaml", *EVERYWHERE, tmp_path=tmp_path)
        predictor.model.controller.linear.bias.data.fill_(float("nan"))
        with pytest.raises(CheckpointError, match="NaN or infinite values, as a diverged one; use earlier weights"):
            FigureDrawer(predictor).draw(str(photo), ["heatmaps"])

    def test_nobody_in_the_image(self, photo, tmp_path, monkeypatch):
        predictor = self.predictor(
            "configs/FCPose/Base-FCPose.yaml", "MODEL.FCOS.SCORE_THRESH_TEST", 1.0, tmp_path=tmp_path
        )
        drawer = FigureDrawer(predictor)
        with pytest.raises(ConfigError, match=r"--person 1: the model finds 0 people in street\.png"):
            drawer.draw(str(photo), ["all"])
        # what needs no person remains
        method = find_method(type(predictor.model))
        figures = tuple(_needing_no_person(figure) if figure.name == "people" else figure for figure in method.figures)
        monkeypatch.setattr("dynpose.engine.figures.figures_of", lambda model: figures)
        assert list(drawer.draw(str(photo), ["all"])) == ["people"]
        with pytest.raises(ConfigError, match="the model finds 0 people"):
            drawer.draw(str(photo), ["people", "heatmaps"])


def _needing_no_person(figure):
    return replace(figure, needs_person=False, draw=lambda scene: scene.image)
