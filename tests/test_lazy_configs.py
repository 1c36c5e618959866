"""Lazy configs: the models of the YAML configs, their data, training and evaluation as detectron2's script has them."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from omegaconf import Container, OmegaConf
from small_models import SCHEMA, image, one_person

from dynpose import model_zoo
from dynpose.config import ConfigError, config_names, load_config
from dynpose.data import COCO_PERSON, KeypointSchema, known_schema, schema_to_cfg
from dynpose.data.synthetic import register_synthetic_pose
from dynpose.engine.optimizer import build_optimizer

NAMES = [name.removesuffix(".py") for name in config_names() if name.endswith(".py") and not name.startswith("common/")]

# Overrides that make the model of each config small: of the lazy config and of the YAML config
_SMALL_FCOS = (
    ["backbone.bottom_up.stages.depth=18", "backbone.out_channels=64", "backbone.bottom_up.stages.norm=BN"],
    ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "64"],
)
SMALL = {
    "FCPose/R_50_3x": (
        [*_SMALL_FCOS[0], "backbone.bottom_up.stem.norm=BN", "basis.norm=BN"],
        [*_SMALL_FCOS[1], "MODEL.RESNETS.NORM", "BN", "MODEL.FCPOSE.BASIS.NORM", "BN"],
    ),
    "InsPose/R_50_100e": (
        [*_SMALL_FCOS[0], "backbone.bottom_up.stem.norm=BN"],
        [*_SMALL_FCOS[1], "MODEL.RESNETS.NORM", "BN"],
    ),
    "InsPose/R_50_3x_release": (
        [
            *_SMALL_FCOS[0],
            *("kp_net_head.controller.in_channels=128", "head.regression_channels=64", "aux_branch.channels=64"),
        ],
        [
            *_SMALL_FCOS[1],
            *("MODEL.INSPOSE_RELEASED.REGRESSION_CONVS_DIM", "64", "MODEL.INSPOSE_RELEASED.AUX_CONVS_DIM", "64"),
        ],
    ),
    "CID/HRNet_W32_140e": (["backbone.bottom_up.width=18", "iia.in_channels=270"], ["MODEL.HRNET.WIDTH", "18"]),
    "QueryPose/R_50_2x": (
        [
            "backbone.bottom_up.stages.depth=18",
            "backbone.out_channels=32",
            "num_queries=5",
            "pooling.keypoint_resolution=4",
        ],
        [
            *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "32"),
            *("MODEL.QUERYPOSE.HIDDEN_DIM", "32", "MODEL.QUERYPOSE.NUM_QUERIES", "5"),
            *("MODEL.QUERYPOSE.NUM_STAGES", "2", "MODEL.QUERYPOSE.KEYPOINT_POOLER_RESOLUTION", "4"),
            *("MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS", "1", "MODEL.QUERYPOSE.KEYPOINT_CONV_DIM", "32"),
        ],
    ),
}


def small_lazy(name):
    """A lazy config with a small model, and K of SCHEMA but for the released InsPose, whose stars need COCO's."""
    overrides = [f"model.{override}" for override in SMALL[name][0]]
    cfg = model_zoo.get_config(f"{name}.py", opts=overrides)
    if not name.startswith("CID"):
        # which a ResNet-18 does not have
        del cfg.model.backbone.bottom_up.stages.stride_in_1x1
    if name.startswith("QueryPose"):
        cfg.model.box_stages = cfg.model.box_stages[:2]
        cfg.model.keypoint_stages = cfg.model.keypoint_stages[:2]
        for stage in cfg.model.keypoint_stages:
            stage.update(num_convs=1, conv_dim=32)
    cfg.model.schema = L(KeypointSchema)(**dataclasses.asdict(schema_of(name)))
    return cfg


def schema_of(name):
    return COCO_PERSON if name.endswith("release") else SCHEMA


def small_yaml(name):
    cfg = load_config(f"{name}.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *SMALL[name][1]])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, schema_of(name))
    return cfg


def shapes(model):
    return [(key, value.shape, value.dtype) for key, value in model.state_dict(keep_vars=True).items()]


def trainable(model):
    return [key for key, value in model.named_parameters() if value.requires_grad]


def test_every_method_has_one():
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_that_of_the_yaml_config(name):
    with torch.device("meta"):
        lazy = instantiate(model_zoo.get_config(f"{name}.py").model)
        yaml = build_model(load_config(f"{name}.yaml", ["MODEL.DEVICE", "meta"]))
    assert type(lazy) is type(yaml)
    assert shapes(lazy) == shapes(yaml)
    assert trainable(lazy) == trainable(yaml)
    assert lazy.schema.has_same_keypoints(yaml.schema)
    assert lazy.schema.sigmas == yaml.schema.sigmas
    assert lazy.options == yaml.options
    if hasattr(yaml, "detector"):
        assert lazy.detector == yaml.detector
        assert vars(lazy.kp_net_head).keys() == vars(yaml.kp_net_head).keys()
        for key in ("spec", "stride", "coord_scales", "backend"):
            assert getattr(lazy.kp_net_head, key) == getattr(yaml.kp_net_head, key)


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_the_yaml_config(name):
    torch.manual_seed(0)
    lazy = instantiate(small_lazy(name).model)
    torch.manual_seed(0)
    yaml = build_model(small_yaml(name))
    assert all(torch.equal(a, b) for a, b in zip(lazy.state_dict().values(), yaml.state_dict().values(), strict=True))
    images = [image(one_person(size=(96, 64)))]
    if name.endswith("release"):
        images = [{"image": images[0]["image"]}]
    else:
        torch.manual_seed(1)
        expected = yaml(images)
        torch.manual_seed(1)
        losses = lazy(images)
        assert losses.keys() == expected.keys()
        assert all(torch.equal(losses[key], expected[key]) for key in expected)
    with torch.no_grad():
        (actual,), (expected,) = lazy.eval()(images), yaml.eval()(images)
    assert torch.equal(actual["instances"].scores, expected["instances"].scores)
    assert torch.equal(actual["instances"].pred_keypoints, expected["instances"].pred_keypoints)


@pytest.fixture(scope="module")
def synthetic_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic")


def on_synthetic_people(name, folder):
    """A small config that trains on synthetic people, which have COCO's keypoints."""
    register_synthetic_pose(str(folder), num_train=4, num_val=2, image_size=(64, 64))
    cfg = small_lazy(name)
    cfg.model.schema = L(known_schema)(name="coco")
    cfg.dataloader.train.dataset.names = "synthetic_pose_train"
    cfg.dataloader.test.dataset.names = "synthetic_pose_val"
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        for augmentation in loader.mapper.augmentations:
            if "short_edge_length" in augmentation:
                augmentation.short_edge_length = [64]
                augmentation.sample_style = "choice"
            elif "size" in augmentation:
                augmentation.size = 64
    cfg.train.max_iter = 2
    return cfg


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation(name, synthetic_folder, catalogs):
    """The steps of detectron2's tools/lazyconfig_train_net.py."""
    cfg = on_synthetic_people(name, synthetic_folder)
    model = instantiate(cfg.model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    trainer.register_hooks([hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))])
    trainer.train(0, cfg.train.max_iter)
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert any("backbone" in key for key in changed)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    assert "AP" in results["keypoints"]


def settings(optimizer):
    """What an optimizer does with each parameter, however they are grouped."""
    ignored = {"params", "initial_lr"}
    return {
        id(parameter): {key: value for key, value in group.items() if key not in ignored}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def clipped_gradients(optimizer, model):
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.step()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_and_the_schedule_are_those_of_the_yaml_config(name):
    cfg, solver = small_lazy(name), small_yaml(name)
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    lazy, yaml = instantiate(cfg.optimizer), build_optimizer(solver, model)
    assert settings(lazy) == settings(yaml)
    torch.testing.assert_close(clipped_gradients(lazy, model), clipped_gradients(yaml, model))

    multiplier = instantiate(cfg.lr_multiplier)
    warmup = solver.SOLVER.WARMUP_ITERS
    assert multiplier(0) == pytest.approx(solver.SOLVER.WARMUP_FACTOR if warmup else 1.0)
    assert multiplier(warmup / cfg.train.max_iter) == pytest.approx(1.0)
    assert multiplier(0.99) == pytest.approx(0.01)
    if solver.SOLVER.MAX_EPOCHS == 0:
        assert cfg.train.max_iter == solver.SOLVER.MAX_ITER
        assert tuple(cfg.lr_multiplier.scheduler.milestones) == solver.SOLVER.STEPS
    assert cfg.dataloader.train.total_batch_size == solver.SOLVER.IMS_PER_BATCH


def test_a_saved_config_gives_the_same_model(tmp_path):
    cfg = model_zoo.get_config("FCPose/R_50_3x.py")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    with torch.device("meta"):
        saved, original = (instantiate(c.model) for c in (LazyConfig.load(str(tmp_path / "config.yaml")), cfg))
    assert shapes(saved) == shapes(original)


def test_a_schema_and_options_hold_no_containers_of_omegaconf():
    cfg = small_lazy("CID/HRNet_W32_140e")
    cfg.model.options.loss_weights = {"multi_heatmap": 1.0, "contrastive": 0.0, "single_heatmap": 4.0}
    model = instantiate(cfg.model)
    assert model.schema == SCHEMA
    assert model.options.loss_weights["contrastive"] == 0.0
    for part in (model.schema, model.options, instantiate(small_lazy("FCPose/R_50_3x").model.detector)):
        assert not any(isinstance(value, Container) for value in vars(part).values())


class TestModelZoo:
    OPTS = ("model.backbone.out_channels=32",)

    def test_trained_weights_are_loaded(self, tmp_path):
        weights = str(tmp_path / "weights.pth")
        expected = model_zoo.get("FCPose/R_50_3x.py", device="cpu", opts=self.OPTS)
        torch.save({"model": expected.state_dict()}, weights)
        opts = [*self.OPTS, f"train.init_checkpoint={weights}"]
        model = model_zoo.get("FCPose/R_50_3x.py", trained=True, device="cpu", opts=opts)
        assert torch.equal(model.controller.linear.weight, expected.controller.linear.weight)

    def test_a_common_part(self):
        assert OmegaConf.select(model_zoo.get_config("common/models/cid.py"), "model.iia.num_keypoints.name")

    def test_errors(self):
        with pytest.raises(ConfigError, match=r"no trained weights .* set MODEL\.WEIGHTS \(train\.init_checkpoint of"):
            model_zoo.get("FCPose/R_50_3x.py", trained=True)
        with pytest.raises(ConfigError, match=r"overrides model\.head\.num_levels\.x=1: "):
            model_zoo.get_config("FCPose/R_50_3x.py", opts=["model.head.num_levels.x=1"])
        with pytest.raises(ConfigError, match=r"FCPose/R_50_3x\.py: a lazy config"):
            load_config("FCPose/R_50_3x.py")


def test_the_examples_of_the_page(catalogs):
    """Each Python block of docs/lazy_configs.md, one after the other."""
    page = (Path(__file__).parents[1] / "docs" / "lazy_configs.md").read_text()
    names = {}
    with torch.device("meta"):
        for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
            exec(block, names)
    assert names["model"].schema.names == ("nose", "left_hoof", "right_hoof")
    assert names["model"].head.cls_logits.in_channels == 128
