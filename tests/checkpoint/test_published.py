"""Published weights by name: in MODEL.WEIGHTS, the model zoo, the predictor and commands."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from detectron2.utils.file_io import PathManager
from small_models import small_model
from test_inspose_checkpoint import backbone_shapes
from weights_server import serving

from dynpose import model_zoo
from dynpose.checkpoint import CheckpointError, PoseCheckpointer, downloading, find_weights, locate_weights
from dynpose.checkpoint.published import check_name, list_weights, needs_download, weights_of_config
from dynpose.config import ConfigError, config_names, load_config
from dynpose.engine import PosePredictor
from dynpose.engine.prediction_record import run_fingerprint
from dynpose.methods import registered_weights
from dynpose.modeling.backbone import HRNet
from dynpose.modeling.backbone.published_weights import find_timm_weights
from dynpose.tools.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "weights.md"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no downloads unless a test has a mirror."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DYNPOSE_OFFLINE", "1")
    monkeypatch.delenv("DYNPOSE_WEIGHTS_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def mirror(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("DYNPOSE_WEIGHTS_MIRROR", server.url)
        monkeypatch.delenv("DYNPOSE_OFFLINE")
        # without the authors' links, which tests must not open
        monkeypatch.setattr(downloading, "_urls", lambda weights: [f"{server.url}/{weights.file}"])
        yield server


def saved(shapes, value=0.0, wrap=None):
    """A checkpoint whose parameters share one number each: a file of kilobytes, with the shapes of a whole model."""
    state = {key: torch.tensor(value).expand(shape) for key, shape in shapes.items()}
    file = io.BytesIO()
    torch.save({wrap: state} if wrap else state, file)
    return file.getvalue()


def shapes_of(test_data, name):
    return json.loads((test_data / "reference" / name).read_text())


class TestNames:
    def test_names_and_files_are_unique(self):
        known = registered_weights()
        for values in ([each.name for each in known], [each.file for each in known]):
            assert len(set(values)) == len(values)
        assert all(weights.by_hand or weights.link.startswith("https://") for weights in known)

    def test_each_config_has_one(self):
        configs = [config for weights in registered_weights() for config in weights.configs]
        assert len(set(configs)) == len(configs)
        assert set(configs) <= set(config_names())

    def test_every_config_starts_from_known_weights(self):
        """Nothing of a config has to be guessed: each name has a link."""
        lines = [line for path in (ROOT / "configs").rglob("*.yaml") for line in path.read_text().splitlines()]
        starts = {match[1] for line in lines if (match := re.match(r'  WEIGHTS: "(.+)"', line))}
        assert len(starts) > 8
        for start in starts:
            assert check_name(start) in registered_weights(), start

    @pytest.mark.parametrize(
        "name",
        [
            "fcpose_r50",
            "dynpose://fcpose_r50",
            "fcpose50.pth",
            "https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/fcpose50.pth",
        ],
    )
    def test_ways_to_name_it(self, name):
        assert find_weights(name).name == "fcpose_r50"

    def test_a_file_on_google_drive(self):
        link = "https://drive.google.com/uc?export=download&id=1JC0NeNwVWMoEuuGBdlsj-ggRWTMOc2UF"
        assert find_weights(link).name == "inspose_r50"

    def test_the_folder_of_several_is_none_of_them(self):
        folder = find_weights("cid_hrnet_w32_coco").link
        assert find_weights(folder).name == folder

    def test_any_weights_of_timm(self):
        name = "convnext_atto.d2_in1k"
        weights = find_weights(name)
        cfg = timm.get_pretrained_cfg(name)
        assert (weights.hub_id, weights.file, weights.licence) == (cfg.hf_hub_id, f"{name}.safetensors", cfg.license)
        assert find_weights("convnext_atto") is None
        assert find_weights("convnext_atto.unknown") is None

    def test_weights_of_timm_without_the_hub(self, monkeypatch):
        url = "https://example.org/net_a1-0123abcd.pth"
        cfg = SimpleNamespace(hf_hub_id=None, hf_hub_filename=None, url=url, license="mit")
        monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: cfg)
        weights = find_timm_weights("convnext_atto.d2_in1k")
        assert (weights.link, weights.file, weights.sha256) == (url, "net_a1-0123abcd.pth", "0123abcd")

    def test_a_url_that_is_invalid(self):
        with pytest.raises(CheckpointError, match=r"http://\[x/w\.pth: it is no valid URL \(Invalid IPv6 URL\)"):
            check_name("http://[x/w.pth")

    def test_any_file_is_cached_where_iopath_has_it(self, cache):
        weights = find_weights("detectron2://COCO-Keypoints/x/model_final.pkl")
        assert weights.link == "https://dl.fbaipublicfiles.com/detectron2/COCO-Keypoints/x/model_final.pkl"
        path = cache / "detectron2" / "COCO-Keypoints" / "x" / "model_final.pkl"
        path.parent.mkdir(parents=True)
        path.touch()
        # detectron2's own handler finds the same file
        assert locate_weights(weights.link) == PathManager.get_local_path(weights.link) == str(path)
        assert find_weights("s3://bucket/w.pth") is None
        assert find_weights("https://example.org/w.pth?matching_heuristics=True") is None

    @pytest.mark.parametrize(
        ("name", "similar"),
        [
            ("fcpose_r5", r"did you mean fcpose_r50 or fcpose_r101"),
            ("FCPose50.pth", r"did you mean .*fcpose_r50"),
            ("dynpose://cid_hrnet_w32", r"did you mean cid_hrnet_w32_coco"),
            ("hrnet_w32.ms_in1", r"did you mean hrnet_w32\.ms_in1k"),
            ("xyzzy", r"of that name; give a file as MODEL\.WEIGHTS, a name that `dynpose model-info --weights-list`"),
        ],
    )
    def test_a_typo(self, name, similar):
        for load in (locate_weights, needs_download, PoseCheckpointer(torch.nn.Linear(1, 1)).load):
            with pytest.raises(CheckpointError, match=rf"^{name}: no such file, nor published weights .*{similar}"):
                load(name)

    def test_a_file_of_that_name_comes_first(self, tmp_path):
        (tmp_path / "fcpose50.pth").touch()
        assert locate_weights("fcpose50.pth") == "fcpose50.pth"
        assert not needs_download("fcpose50.pth")
        assert locate_weights("") == ""

    def test_what_must_be_downloaded(self, cache):
        assert needs_download("fcpose_r50")
        assert needs_download("s3://bucket/w.pth")
        # no download helps: loading explains what to do
        assert not needs_download("pose_hrnet_w32_384x288")
        (cache / "dynpose").mkdir(parents=True)
        (cache / "dynpose" / "fcpose50.pth").touch()
        assert not needs_download("fcpose_r50")


class TestFcpose:
    """From the name to a model, with a file that has the names and shapes of AdelaiDet's."""

    CONFIG = "FCPose/R_50_3x_release.yaml"

    @pytest.fixture
    def released(self, test_data, mirror):
        mirror.files["/fcpose50.pth"] = saved(shapes_of(test_data, "fcpose/keys_full_model_r50.json"), 0.5, "model")
        return mirror

    def test_everything_takes_the_name(self, released, cache, monkeypatch):
        model = model_zoo.get(self.CONFIG, trained=True, device="cpu")
        assert all((value == 0.5).all() for value in model.controller.parameters())
        assert len(released.requests) == 1
        monkeypatch.setenv("DYNPOSE_OFFLINE", "1")
        predictor = PosePredictor.from_files(self.CONFIG, "fcpose_r50", device="cpu")
        assert all((value == 0.5).all() for value in predictor.model.controller.parameters())
        weights = run_fingerprint(predictor.cfg, predictor.precision)["weights"]
        assert (weights["file"], weights["bytes"]) == ("fcpose_r50", len(released.files["/fcpose50.pth"]))
        with PathManager.open("dynpose://fcpose_r50", "rb") as file:
            assert file.read() == released.files["/fcpose50.pth"]
        assert PathManager.get_local_path("dynpose://fcpose_r50") == str(cache / "dynpose" / "fcpose50.pth")

    def test_it_is_converted_by_name(self, released, tmp_path, capsys):
        assert main(["convert-weights", "--input", "fcpose_r50", "--output", "own.pth"]) == 0
        assert "fcpose_r50: AdelaiDet's FCPose, 17 keypoints" in capsys.readouterr().out
        assert (tmp_path / "own.pth").exists()

    def test_another_config_is_told_which_fits(self, released):
        checkpointer = PoseCheckpointer(small_model("FCPose/R_50_1x.yaml"))
        with pytest.raises(
            CheckpointError,
            match=r"^fcpose_r50 \(.*fcpose50\.pth\): .*\. fcpose_r50 fits FCPose/R_50_3x_release\.yaml$",
        ):
            checkpointer.load("fcpose_r50")

    def test_another_method_is_refused_before_the_download(self, mirror):
        checkpointer = PoseCheckpointer(small_model("FCPose/R_50_1x.yaml"))
        with pytest.raises(
            CheckpointError,
            match=r"^inspose_r50: these are the published weights of InsPoseReleased, but the model is FCPose\. Give "
            r"weights .*\. inspose_r50 fits InsPose/R_50_3x_release\.yaml$",
        ):
            checkpointer.load("inspose_r50")
        assert mirror.requests == []

    def test_a_file_of_another_size_is_not_believed(self, test_data, released, cache):
        shapes = shapes_of(test_data, "fcpose/keys_full_model_r50.json")
        del shapes["backbone.fpn_lateral3.bias"]
        released.files["/fcpose50.pth"] = saved({**shapes, "backbone.fpn_lateral4.bias": [128]}, wrap="model")
        message = (
            r"fcpose_r50: .*/fcpose50\.pth: it sent another file than the published one: compared with FCPose/R_50_3x_"
            r"release\.yaml, 1 parameters are missing, 0 unknown and 1 of another shape \(backbone\.fpn_lateral3\.bias"
        )
        with pytest.raises(CheckpointError, match=message):
            locate_weights("fcpose_r50")
        assert list((cache / "dynpose").iterdir()) == []

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (b"no checkpoint at all", "can't be read as a checkpoint"),
            (saved({"weight": [2]}), "the names of no known release"),
            (saved({}, wrap="model"), "the names of no known release"),
        ],
        ids=["text", "other weights", "no weights"],
    )
    def test_other_content_is_not_believed(self, mirror, content, fault):
        mirror.files["/fcpose50.pth"] = content
        with pytest.raises(CheckpointError, match=f"it sent another file than the published one: .*{fault}"):
            locate_weights("fcpose_r50")

    def test_a_damaged_archive_is_not_believed(self, released):
        released.files["/fcpose50.pth"] = released.files["/fcpose50.pth"].replace(b"backbone", b"backbonf", 1)
        with pytest.raises(
            CheckpointError, match=r"it sent another file than the published one: the checksum of .*data\.pkl is wrong"
        ):
            locate_weights("fcpose_r50")


def test_the_release_of_inspose(test_data, mirror):
    head = {f"bbox_head.{key}": shape for key, shape in shapes_of(test_data, "inspose/keys.json").items()}
    mirror.files["/inspose_r50.pth"] = saved({**backbone_shapes(), **head}, wrap="state_dict")
    assert locate_weights("inspose_r50").endswith("inspose_r50.pth")


def test_a_release_of_cid_by_a_mirror(test_data, mirror):
    """The authors' link is a folder."""
    mirror.files["/cid_hrnet_w32_coco.pth"] = saved(shapes_of(test_data, "cid/keys.json"))
    assert locate_weights("cid_hrnet_w32_coco").endswith("cid_hrnet_w32_coco.pth")


def test_the_larger_release_of_querypose(test_data, mirror):
    """The smaller one is in test_querypose_checkpoint.py."""
    shapes = shapes_of(test_data, "querypose_first/keys_light.json")
    for name in ("init_proposal_features.weight", "init_proposal_boxes.weight"):
        shapes[name] = [100, *shapes[name][1:]]
    shapes |= shapes_of(test_data, "backbones/hrnet_w48/keys.json")
    mirror.files["/querypose_light_hrnet_w48.pth"] = saved(shapes, wrap="model")
    assert locate_weights("querypose_light_hrnet_w48").endswith("querypose_light_hrnet_w48.pth")


class TestBackbone:
    def test_imagenet_weights_by_name(self, mirror, tmp_path):
        model = torch.nn.Module()
        model.backbone = HRNet(18)
        shapes = {key: value.shape for key, value in model.backbone.body.state_dict().items()}
        mirror.files["/pose_hrnet_w32_384x288.pth"] = saved(shapes, 0.5)
        PoseCheckpointer(model).load("pose_hrnet_w32_384x288")
        assert all((value == 0.5).all() for value in model.parameters())
        mirror.files["/hrnetv2_w32_imagenet_pretrained.pth"] = saved({"conv1.weight": [64, 3, 3, 3]})
        with pytest.raises(CheckpointError, match="its parameters do not have the names of HRNet"):
            locate_weights("hrnetv2_w32_imagenet_pretrained")

    def test_weights_to_fetch_by_hand(self, cache):
        """The advice is not to train a model first."""
        with pytest.raises(CheckpointError) as raised:
            PoseCheckpointer(torch.nn.Linear(1, 1)).load(load_config("QueryPose/HRNet_W32_2x.yaml").MODEL.WEIGHTS)
        assert str(raised.value) == (
            "pose_hrnet_w32_384x288: HRNet-W32, single-person pose, COCO: can't be downloaded by a program. Open "
            "https://drive.google.com/drive/folders/17DVq-pwqx40ELmbBjYEYVQc1UC9ofgsq, download pose_hrnet_w32_384x288"
            f".pth, the weights of HRNet-W32 in that folder, and put it as {cache}/dynpose/pose_hrnet_w32_384x288.pth, "
            "or as pose_hrnet_w32_384x288.pth in a folder that the environment variable DYNPOSE_WEIGHTS_MIRROR names"
        )

    def test_detectron2s_weights_offline(self, cache):
        with pytest.raises(
            CheckpointError, match=rf"DYNPOSE_OFFLINE is set.* put it as {cache}/detectron2/ImageNetPre"
        ):
            PoseCheckpointer(torch.nn.Linear(1, 1)).load("detectron2://ImageNetPretrained/MSRA/R-50.pkl")


class TestModelZoo:
    def test_url_of_a_config(self):
        for name in ("FCPose/R_50_3x_release.yaml", "FCPose/R_50_3x_release", "FCPose/R_50_3x_release.py"):
            assert weights_of_config(name).name == "fcpose_r50"
        assert model_zoo.get_checkpoint_url("InsPose/R_50_3x_release.py") == "dynpose://inspose_r50"
        with pytest.raises(
            ConfigError, match=r"^FCPose/R_50_3x\.yaml: no trained weights .*, FCPose/R_50_3x_release\.y"
        ):
            model_zoo.get_checkpoint_url("FCPose/R_50_3x.yaml")

    def test_config_of_a_trained_model(self, tmp_path):
        name = "FCPose/R_50_3x_release.yaml"
        assert model_zoo.get_config(name).MODEL.WEIGHTS == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
        assert model_zoo.get_config(name, trained=True).MODEL.WEIGHTS == "dynpose://fcpose_r50"
        opts = ["MODEL.WEIGHTS", "inspose_r50"]
        assert model_zoo.get_config(name, trained=True, opts=opts).MODEL.WEIGHTS == "inspose_r50"
        (tmp_path / "final.pth").touch()
        (tmp_path / "run.yaml").write_text(f"_BASE_: {name}\nMODEL: {{WEIGHTS: final.pth}}\n")
        assert model_zoo.get_config("run.yaml", trained=True).MODEL.WEIGHTS == "final.pth"

    def test_lazy_config_of_a_trained_model(self):
        name, key = "InsPose/R_50_3x_release.py", "train.init_checkpoint"
        assert model_zoo.get_config(name, trained=True).train.init_checkpoint == "dynpose://inspose_r50"
        opts = [f"{key}=fcpose_r50"]
        assert model_zoo.get_config(name, trained=True, opts=opts).train.init_checkpoint == "fcpose_r50"


def test_the_page_lists_them_all():
    columns = ("name", "weights", "configs, or file", "AP as published", "licence", "get")
    rows = [columns, ("---",) * len(columns), *list_weights()]
    assert [f"| {' | '.join(row)} |" for row in rows] == re.findall(r"^\|(?: [^|]* \|){6}$", PAGE.read_text(), re.M)


def test_the_readmes_link_each_row():
    for weights in registered_weights():
        for config in weights.configs:
            (line,) = [
                line
                for readme in (ROOT / "projects").glob("*/README.md")
                for line in readme.read_text().splitlines()
                if f"`configs/{config}`" in line and line.startswith("|")
            ]
            assert f"[`{weights.name}`]({weights.link})" in line


def test_the_command_lists_them(cache, capsys):
    (cache / "dynpose").mkdir(parents=True)
    (cache / "dynpose" / "fcpose50.pth").touch()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["model-info", "--weights-list"])
    lines = capsys.readouterr().out.splitlines()
    entries: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith(" "):
            entries[line] = []
        else:
            entries[list(entries)[-1]].append(line)
    assert list(entries) == [weights.name for weights in registered_weights()]
    # the longest is a link
    assert max(map(len, lines)) < 140
    assert entries["fcpose_r50"] == [
        "    weights  FCPose, ResNet-50, 3x, COCO; AP as published: 65.2 val2017",
        "    config   FCPose/R_50_3x_release.yaml",
        "    file     fcpose50.pth",
        "    licence  AdelaiDet's: BSD 2-Clause, for non-commercial purposes",
        "    where    on this machine",
    ]
    where = entries["cid_hrnet_w32_coco"][-1]
    assert where == "    where    by hand: https://1drv.ms/u/s!AhpKYLhXKpH7gv8RepyMU_iU5uhxhg"
