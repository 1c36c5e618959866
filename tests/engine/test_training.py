"""Training runs, end to end on tiny synthetic people: train, evaluate, resume, fine-tune, refuse invalid input."""

import json
import logging
import math
import pickle
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from small_models import SMALL

from dynpose.benchmark.model.case import settle_norms
from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError, load_config
from dynpose.data import DatasetError
from dynpose.engine import PoseTrainer, main, setup

pytestmark = pytest.mark.usefixtures("clean_run")

CONFIG = "configs/quick/fcpose_synthetic.yaml"
TINY = [
    *SMALL,
    *(
        "DATASETS.SYNTHETIC.NUM_TRAIN",
        "4",
        "DATASETS.SYNTHETIC.NUM_VAL",
        "2",
        "DATASETS.SYNTHETIC.IMAGE_SIZE",
        "[64,64]",
    ),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1"),
    *("DATALOADER.NUM_WORKERS", "0"),
]


def arguments(output, *opts, config=CONFIG, eval_only=False, resume=False):
    opts = [*TINY, "OUTPUT_DIR", str(output), *map(str, opts)]
    return SimpleNamespace(config_file=config, opts=opts, eval_only=eval_only, resume=resume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three iterations."""
    folder = tmp_path_factory.mktemp("run")
    results = main(arguments(folder))
    return folder, results


def test_a_run_leaves_metrics_weights_and_a_config(finished):
    folder, results = finished
    assert results.keys() == {"keypoints", "bbox"}
    assert "AP" in results["keypoints"]
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert all(math.isfinite(value) for value in lines[0].values())
    assert {"loss_fcos_cls", "loss_fcos_box", "loss_fcos_centerness", "loss_heatmap", "loss_offset"} <= lines[0].keys()
    assert torch.load(folder / "model_final.pth")["dynpose"]["method"] == "FCPose"

    # the config alone describes the model: no data set is needed to build it
    cfg = load_config(str(folder / "config.yaml"))
    assert len(cfg.MODEL.KEYPOINT_SCHEMA.NAMES) == 17


def test_evaluation_alone_gives_the_same(finished, tmp_path):
    folder, results = finished
    root = ["DATASETS.SYNTHETIC.ROOT", folder / "synthetic"]
    again = main(arguments(tmp_path, "MODEL.WEIGHTS", folder / "model_final.pth", *root, eval_only=True))
    assert again["keypoints"] == pytest.approx(results["keypoints"], nan_ok=True)


def test_only_weights_of_the_whole_model_are_evaluated(finished, tmp_path):
    """Training starts from a backbone's, an evaluation would be one of noise."""
    folder, _ = finished
    state = torch.load(folder / "model_final.pth")["model"]
    backbone = {key: value for key, value in state.items() if key.startswith("backbone.bottom_up.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    options = ["MODEL.WEIGHTS", tmp_path / "backbone.pth", "DATASETS.SYNTHETIC.ROOT", folder / "synthetic"]
    message = r"backbone\.pth: \d+ parameters of the model are not in it .*weights of a trained model"
    with pytest.raises(CheckpointError, match=message):
        main(arguments(tmp_path / "evaluation", *options, eval_only=True))
    main(arguments(tmp_path / "run", *options, "SOLVER.MAX_ITER", "1"))


def test_detectron2s_own_model_is_evaluated(finished, tmp_path):
    """From a file like those of its model zoo."""
    folder, _ = finished
    weights = tmp_path / "model_final.pkl"
    args = arguments(
        tmp_path,
        *("MODEL.WEIGHTS", weights, "DATASETS.SYNTHETIC.ROOT", folder / "synthetic"),
        *("DATASETS.TRAIN", ("synthetic_pose_train",), "DATASETS.TEST", ("synthetic_pose_val",)),
        *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (12,)),
        config=model_zoo.get_config_file("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml"),
        eval_only=True,
    )
    model = build_model(load_config(args.config_file, args.opts)).eval()
    settle_norms(model)  # or else its softmax overflows
    state = model.state_dict()
    # those of the zoo have not all of the constants
    arrays = {key: value.numpy() for key, value in state.items() if key not in ("pixel_mean", "pixel_std")}
    weights.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    assert main(args).keys() == {"keypoints", "bbox"}

    del arrays["roi_heads.keypoint_head.score_lowres.weight"]
    weights.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    with pytest.raises(CheckpointError, match=r"1 parameters of the model .*score_lowres\.weight"):
        main(args)


def test_resume_continues_where_it_stopped(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    main(arguments(tmp_path, "SOLVER.MAX_ITER", "5", resume=True))
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert checkpoint["iteration"] == 4


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".pth", ".json")}


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished, tmp_path, monkeypatch):
    folder, results = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = _files(tmp_path)
    monkeypatch.setattr(PoseTrainer, "test", lambda *_: pytest.fail("its results are there already"))
    root = ["DATASETS.SYNTHETIC.ROOT", folder / "synthetic"]
    again = main(arguments(tmp_path, *root, resume=True))
    assert again["keypoints"] == pytest.approx(results["keypoints"], nan_ok=True)
    after = _files(tmp_path)
    assert len(json.loads(after.pop("run.json"))["starts"]) == 2
    del before["run.json"]
    assert after == before
    # on other data it is evaluated
    monkeypatch.setattr(PoseTrainer, "test", lambda *_: {"keypoints": {"AP": 7.0}})
    again = main(arguments(tmp_path, *root, "DATASETS.TEST", ("synthetic_pose_train",), resume=True))
    assert again == {"keypoints": {"AP": 7.0}}


def test_a_run_of_an_earlier_version_keeps_its_whole_state(finished, tmp_path):
    """Its final file has all, and it has no other checkpoint of its last iteration."""
    folder, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = torch.load(tmp_path / "model_final.pth", weights_only=True)
    for name in ("checkpoints.json", "evaluations.json", "metrics.json"):
        (tmp_path / name).unlink()
    (tmp_path / "model_0000002.pth").rename(tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    whole = torch.load(tmp_path / "model_final.pth", weights_only=True)
    root = ["DATASETS.SYNTHETIC.ROOT", folder / "synthetic"]
    assert main(arguments(tmp_path, *root, resume=True))["keypoints"]
    kept = torch.load(tmp_path / "model_0000002.pth", weights_only=True)
    assert kept.keys() == whole.keys()
    assert kept["trainer"].keys() == whole["trainer"].keys()
    assert kept["trainer"]["iteration"] == kept["iteration"] == 2
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final.keys() == weights.keys()
    assert all(torch.equal(value, weights["model"][name]) for name, value in final["model"].items())
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    line = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert line["iteration"] == 3
    assert "keypoints/AP" in line


def test_files_of_an_earlier_run_are_no_results_of_this_one(finished, tmp_path, monkeypatch):
    """A run that starts from scratch in the same folder ends in its evaluation; the older files have the same names."""
    folder, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    opts = ["DATASETS.SYNTHETIC.ROOT", folder / "synthetic", "SEED", 5]
    monkeypatch.setattr(PoseTrainer, "test", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, *opts))
    shutil.copy(folder / "model_final.pth", tmp_path)
    monkeypatch.setattr(PoseTrainer, "test", lambda *_: {"keypoints": {"AP": 7.0}})
    assert main(arguments(tmp_path, *opts, resume=True)) == {"keypoints": {"AP": 7.0}}
    final, numbered = (
        torch.load(tmp_path / name, weights_only=True)["model"] for name in ("model_final.pth", "model_0000002.pth")
    )
    old = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, numbered[name]) for name, value in final.items())
    assert not all(torch.equal(value, old[name]) for name, value in final.items())


def test_fine_tuning_on_other_keypoints(finished, tmp_path, caplog):
    folder, _ = finished
    truth = json.loads((folder / "synthetic/train.json").read_text())
    # five of the seventeen keypoints, as a data set of the user's own
    chosen = [0, 5, 6, 15, 16]
    (category,) = truth["categories"]
    category["keypoints"] = [category["keypoints"][i] for i in chosen]
    category["skeleton"] = []
    for annotation in truth["annotations"]:
        triples = [annotation["keypoints"][3 * i : 3 * i + 3] for i in chosen]
        annotation["keypoints"] = [value for triple in triples for value in triple]
        annotation["num_keypoints"] = sum(triple[2] > 0 for triple in triples)
    (tmp_path / "five.json").write_text(json.dumps(truth))
    entry = {"name": "five", "json_file": str(tmp_path / "five.json"), "image_root": str(folder / "synthetic/train")}
    data = ["DATASETS.POSE", [entry], "DATASETS.TRAIN", ("five",), "DATASETS.TEST", ("five",)]
    weights = ["MODEL.WEIGHTS", folder / "model_final.pth"]
    with caplog.at_level(logging.INFO):
        results = main(arguments(tmp_path / "run", *data, *weights, "SOLVER.MAX_ITER", "1"))
    assert "initialised from scratch: " in caplog.text
    assert "AP" in results["keypoints"]
    with pytest.raises(CheckpointError, match=r"has 17 keypoints .* the model 5"):
        main(arguments(tmp_path / "evaluation", *data, *weights, eval_only=True))


@pytest.mark.parametrize(
    ("opts", "error", "message"),
    [
        (["DATASETS.TRAIN", "('keypoints_coco_2017_train',)"], DatasetError, "DETECTRON2_DATASETS"),
        (["MODEL.FCOS.NUM_CLASSES", "3"], ConfigError, r"has 1 classes .* set MODEL.FCOS.NUM_CLASSES to 1"),
        (["SOLVER.IMS_PER_BATCH", "0"], ConfigError, "SOLVER.IMS_PER_BATCH must be at least 1, got 0"),
        (
            ["INPUT.AFFINE_RESIZE_TEST", "True"],
            ConfigError,
            "FCPose does not support the transform back to the original image",
        ),
        (["MODEL.KEYPOINT_SCHEMA.NAMES", "['a','b']", "MODEL.KEYPOINT_SCHEMA.SIGMAS", "[0.1,0.1]"], DatasetError, "17"),
        (
            ["DATASETS.POSE", "[{'name': 'x', 'json': 'y'}]"],
            DatasetError,
            r"DATASETS.POSE\[0\] has unknown keys 'json'",
        ),
    ],
)
def test_faults_are_found_before_training(tmp_path, monkeypatch, opts, error, message):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(error, match=message):
        setup(arguments(tmp_path, *opts))


def test_a_truncated_image_is_found_before_training(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "synthetic", tmp_path / "synthetic")
    victim = sorted((tmp_path / "synthetic/train").glob("*.jpg"))[1]
    victim.write_bytes(victim.read_bytes()[:-600])
    with pytest.raises(DatasetError, match=rf"1 of 4 images can't be read: .*{victim.name} \(.*truncated"):
        setup(arguments(tmp_path))
    setup(arguments(tmp_path, "DATASETS.CHECK_IMAGES", "False"))


def test_a_lack_of_crowd_indices_is_found_before_training(finished, tmp_path):
    """As in a rewritten CrowdPose file; training does not need it."""
    folder, _ = finished
    original = MetadataCatalog.get("synthetic_pose_val")
    truth = json.loads((folder / "synthetic/val.json").read_text())
    for name, crowd_index in (("without", None), ("with", 0.3)):
        for image in truth["images"]:
            image["crowdIndex"] = crowd_index
        (tmp_path / f"{name}.json").write_text(json.dumps(truth))
        DatasetCatalog.register(name, lambda: DatasetCatalog.get("synthetic_pose_val"))
        own = {"name": name, "json_file": str(tmp_path / f"{name}.json"), "image_root": str(folder / "synthetic/val")}
        metadata = {**original.as_dict(), **own}
        MetadataCatalog.get(name).set(**{**metadata, "keypoint_protocol": "crowdpose"})
    root = ["DATASETS.SYNTHETIC.ROOT", folder / "synthetic"]
    with pytest.raises(DatasetError, match=r"without\.json: image .* crowdIndex is None"):
        setup(arguments(tmp_path, *root, "DATASETS.TEST", ("with", "without")))
    with pytest.raises(DatasetError, match=r"without\.json: image .* crowdIndex is None"):
        setup(arguments(tmp_path, *root, "DATASETS.TEST", ("without",), eval_only=True))
    setup(arguments(tmp_path, *root, "DATASETS.TRAIN", ("without",), "DATASETS.TEST", ("with",)))
