"""Configs: every file loads, every row of a table differs from another in its keys alone, every fault names its key."""

from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import ConfigError, add_dynpose_config, load_config
from dynpose.data import COCO_PERSON, schema_to_cfg

CONFIGS = sorted(Path("configs").rglob("*.yaml"))
# what no table of a paper has
OTHERS = {"custom", "quick"}
load_once = cache(load_config)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_loads(path):
    cfg = load_once(str(path))
    if path.parent.name == "custom":
        return  # named after a machine
    method = (path.stem if path.parent.name == "quick" else path.relative_to("configs").parts[0]).lower()
    assert method.startswith(cfg.MODEL.META_ARCHITECTURE.lower().removesuffix("released"))
    assert cfg.MODEL.KEYPOINT_ON


_R_101 = {"MODEL.WEIGHTS": "detectron2://ImageNetPretrained/MSRA/R-101.pkl", "MODEL.RESNETS.DEPTH": 101}
# mean and standard deviation of the RGB images that torchvision's and timm's models were trained with
_IMAGENET_RGB = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}
_LEARNT_HRNET = {"MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.HRNET.NORM": "FrozenBN"}
_CROWDPOSE = {"DATASETS.TRAIN": ("crowdpose_trainval",), "DATASETS.TEST": ("crowdpose_test",)}
_CID_RELEASE = {"MODEL.CID.HEATMAP_LOSS_NORM": "pooled", "MODEL.CID.INDEX_COORDINATES": True}
_CID_W48 = {
    "MODEL.WEIGHTS": "hrnet_w48.ms_in1k",
    "MODEL.HRNET.WIDTH": 48,
    "INPUT.AFFINE.SIZE": [640, 640],
    "INPUT.MIN_SIZE_TEST": 640,
    "TEST.AUG.MIN_SIZES": (640,),
}
# Tables 1 and 2 of the CID paper
_CID_ABLATIONS = [
    ("spatial", {"RECALIBRATION": ["spatial"]}),
    ("channel", {"RECALIBRATION": ["channel"]}),
    ("no_contrastive", {"CONTRASTIVE_LOSS_WEIGHT": 0.0}),
    ("spatial_no_contrastive", {"RECALIBRATION": ["spatial"], "CONTRASTIVE_LOSS_WEIGHT": 0.0}),
    ("channel_no_contrastive", {"RECALIBRATION": ["channel"], "CONTRASTIVE_LOSS_WEIGHT": 0.0}),
    *((f"channels_{n}", {"CHANNELS": n}) for n in (8, 16, 64)),
]

# Tables 1 to 3 of the QueryPose paper
_NO_ITERATION = {"ITERATION": "none"}
_INSTANCE = {"QUERY": "instance", **_NO_ITERATION}
_QUERYPOSE_ABLATIONS = [
    *((f"instance_{kind}", {**_INSTANCE, "INTERACTION": kind}) for kind in ("mhsa", "spatial_attention")),
    *(
        (f"{query}_dynamic_{kind}{name}", {**changes, "INTERACTION": f"dynamic_{kind}", **no_other_mlp})
        for query, changes in (("instance", _INSTANCE), ("part", _NO_ITERATION))
        for kind in ("channel", "spatial")
        for name, no_other_mlp in (("", {"DYNAMIC_MLP": False}), ("_two_mlps", {}))
    ),
    ("part_mhsa", {**_NO_ITERATION, "INTERACTION": "mhsa"}),
    ("baseline", {**_INSTANCE, "INTERACTION": "pool"}),
    ("baseline_no_dynamic_mlp", {**_INSTANCE, "INTERACTION": "pool", "DYNAMIC_MLP": False}),
    *((f"iteration_{kind}", {"ITERATION": kind}) for kind in ("none", "sum", "concat")),
    *((f"part_dim_{dim}", {"PART_DIM": dim}) for dim in (32, 64, 256)),
    *((f"parts_{scheme}", {"PARTS": scheme}) for scheme in "abd"),
    ("pipeline_box_decoder", {"PIPELINE": "box_decoder"}),
]


def _ablations(method, base, rows):
    """Rows of the configs in the method's folder of ablations; ``rows`` have the keys without their section."""
    section = f"MODEL.{method.upper()}."
    return [
        (f"{method}/ablations/{name}", f"{method}/{base}", {section + key: value for key, value in changes.items()})
        for name, changes in rows
    ]


ROWS = pytest.mark.parametrize(
    ("config", "base", "changes"),
    [
        ("QueryPose/ablations/aux_heatmap", "QueryPose/HRNet_W32_2x", {"MODEL.QUERYPOSE.AUX_HEATMAP": True}),
        ("QueryPose/R_50_2x_50_queries", "QueryPose/R_50_2x", {"MODEL.QUERYPOSE.NUM_QUERIES": 50}),
        *(
            (
                f"InsPose/{name}_100e_multi_scale{mirrored}",
                f"InsPose/{name}_100e",
                {
                    "TEST.AUG.ENABLED": True,
                    "TEST.AUG.MIN_SIZES": (640, 800, 1000),
                    "TEST.AUG.MAX_SIZE": 1666,
                    **({} if mirrored else {"TEST.AUG.FLIP": False}),
                },
            )
            for name in ("R_50", "R_101", "HRNet_W32")
            for mirrored in ("", "_flip")
        ),
        *((f"InsPose/ablations/depth_{n}", "InsPose/R_50_36e", {"MODEL.KP_NET.DEPTH": n}) for n in (1, 2, 4)),
        *(
            (f"InsPose/ablations/map_stride_{n}", "InsPose/R_50_36e", {"MODEL.INSPOSE.MAP_STRIDE": n})
            for n in (2, 4, 16)
        ),
        ("InsPose/ablations/box_head", "InsPose/R_50_36e", {"MODEL.INSPOSE.BOX_HEAD": True}),
        ("InsPose/ablations/no_heatmap", "InsPose/R_50_36e", {"MODEL.INSPOSE.HEATMAP": False}),
        (
            "InsPose/ablations/no_offset_no_heatmap",
            "InsPose/R_50_36e",
            {"MODEL.INSPOSE.HEATMAP": False, "MODEL.INSPOSE.DISK_OFFSET": False},
        ),
        *(
            (f"CID/{name}_release", f"CID/{name}", _CID_RELEASE)
            for name in ("HRNet_W32_140e", "HRNet_W32_140e_coco_to_ochuman")
        ),
        *(
            (
                f"CID/{name}_release",
                f"CID/{name}",
                {**_CID_RELEASE, "INPUT.IGNORE_MASKS": False},
            )
            for name in ("HRNet_W32_140e_ochuman", "HRNet_W32_300e_crowdpose")
        ),
        ("CID/HRNet_W32_140e_paper", "CID/HRNet_W32_140e", {"MODEL.CID.CHANNEL_WEIGHTS": "feature"}),
        (
            "CID/HRNet_W32_300e_crowdpose",
            "CID/HRNet_W32_140e",
            {
                "MODEL.CID.MIN_BOX_AREA": 0.0,
                **_CROWDPOSE,
                "SOLVER.MAX_EPOCHS": 300,
                "SOLVER.STEPS_EPOCHS": [200, 260],
            },
        ),
        # FCPose
        ("FCPose/R_50_1x", "FCPose/Base-FCPose", {}),
        *((f"FCPose/ablations/channels_{n}", "FCPose/R_50_1x", {"MODEL.KP_NET.IN_CHANNELS": n}) for n in (16, 64)),
        *((f"FCPose/ablations/width_{n}", "FCPose/R_50_1x", {"MODEL.KP_NET.WIDTH": n}) for n in (16, 64)),
        *((f"FCPose/ablations/depth_{n}", "FCPose/R_50_1x", {"MODEL.KP_NET.DEPTH": n}) for n in (2, 4)),
        *(
            (f"FCPose/ablations/refinement_{kind}", "FCPose/R_50_1x", {"MODEL.FCPOSE.REFINEMENT": kind})
            for kind in ("none", "deconv", "instance")
        ),
        ("FCPose/R_50_3x", "FCPose/R_50_1x", {"SOLVER.MAX_ITER": 270000, "SOLVER.STEPS": (180000, 240000)}),
        *((f"FCPose/R_101_3x{variant}", f"FCPose/R_50_3x{variant}", _R_101) for variant in ("", "_release")),
        (
            "FCPose/R_50_3x_release",
            "FCPose/R_50_3x",
            {
                "MODEL.FCOS.GIOU_SMOOTH": 1.0,
                "MODEL.FCPOSE.CONTROLLER_KERNEL": 3,
                "MODEL.FCPOSE.MAX_SAMPLES": 70,
                "MODEL.FCPOSE.HEATMAP_LOSS": "upsampled",
                "MODEL.FCPOSE.OFFSET_SOURCE": "basis",
                "MODEL.FCPOSE.OFFSET_SCALE": 1.0,
                "MODEL.FCPOSE.OFFSET_LOSS": "expected_distance",
                "MODEL.FCPOSE.OFFSET_LOSS_WEIGHT": 9.0,
                "MODEL.FCPOSE.AUX_HEATMAPS": True,
            },
        ),
        (
            "FCPose/DLA_34_4x",
            "FCPose/R_50_1x",
            {
                **_IMAGENET_RGB,
                "MODEL.WEIGHTS": "dla34.in1k",
                "MODEL.BACKBONE.NAME": "build_fcos_dla_fpn_backbone",
                "MODEL.BACKBONE.FREEZE_AT": 0,
                "MODEL.DLA.NORM": "SyncBN",
                "MODEL.FCOS.IN_FEATURES": ["p3", "p4", "p5"],
                "MODEL.FCOS.SIZES_OF_INTEREST": [64, 128],
                "MODEL.FCPOSE.LAST_SIZE_OF_INTEREST": 736,
                "INPUT.MIN_SIZE_TRAIN": (128, 736),
                "INPUT.MIN_SIZE_TEST": 512,
                "INPUT.MAX_SIZE_TEST": 736,
                "SOLVER.MAX_ITER": 360000,
                "SOLVER.STEPS": (300000, 340000),
            },
        ),
        ("FCPose/DLA_60_4x", "FCPose/DLA_34_4x", {"MODEL.WEIGHTS": "dla60.in1k", "MODEL.DLA.DEPTH": 60}),
        # CID
        (
            "CID/HRNet_W32_140e",
            "CID/Base-CID",
            {"SOLVER.MAX_EPOCHS": 140, "SOLVER.STEPS_EPOCHS": [90, 120]},
        ),
        (
            "CID/HRNet_W32_35e",
            "CID/HRNet_W32_140e",
            {"SOLVER.MAX_EPOCHS": 35, "SOLVER.STEPS_EPOCHS": [22.5, 30]},
        ),
        *_ablations("CID", "HRNet_W32_35e", _CID_ABLATIONS),
        (
            "CID/HRNet_W32_140e_ochuman",
            "CID/HRNet_W32_140e",
            {
                "MODEL.CID.OKS_NMS_THRESH": 0.7,
                "DATASETS.TRAIN": ("ochuman_val",),
                "DATASETS.TEST": ("ochuman_test",),
                "SOLVER.REFERENCE_BATCH": 20,
                "SOLVER.IMS_PER_BATCH": 20,
            },
        ),
        (
            "CID/HRNet_W32_140e_coco_to_ochuman",
            "CID/HRNet_W32_140e",
            {
                "MODEL.CID.OKS_NMS_THRESH": 0.7,
                "MODEL.CID.SMOOTHING": 11,
                "DATASETS.TEST": ("ochuman_val", "ochuman_test"),
            },
        ),
        *(
            (f"CID/HRNet_W48_{name}", f"CID/HRNet_W32_{name}", _CID_W48)
            for name in ("140e", "140e_ochuman", "140e_coco_to_ochuman", "300e_crowdpose")
        ),
        # InsPose
        (
            "InsPose/R_50_36e",
            "InsPose/Base-InsPose",
            {"SOLVER.MAX_EPOCHS": 36, "SOLVER.STEPS_EPOCHS": [27, 33]},
        ),
        (
            "InsPose/R_50_100e",
            "InsPose/R_50_36e",
            {"SOLVER.MAX_EPOCHS": 100, "SOLVER.STEPS_EPOCHS": [75, 90]},
        ),
        ("InsPose/R_101_100e", "InsPose/R_50_100e", _R_101),
        (
            "InsPose/HRNet_W32_100e",
            "InsPose/R_50_100e",
            {
                **_IMAGENET_RGB,
                **_LEARNT_HRNET,
                "MODEL.WEIGHTS": "hrnet_w32.ms_in1k",
                "MODEL.BACKBONE.NAME": "build_fcos_hrnet_fpn_backbone",
            },
        ),
        (
            "InsPose/R_50_3x_release",
            "InsPose/R_50_36e",
            {
                **_IMAGENET_RGB,
                "MODEL.META_ARCHITECTURE": "InsPoseReleased",
                "MODEL.WEIGHTS": "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
                "MODEL.RESNETS.NORM": "BN",
                "MODEL.RESNETS.STRIDE_IN_1X1": False,
                "MODEL.FCOS.SCORE_THRESH_TEST": 0.05,
                "MODEL.FCOS.PRE_NMS_TOPK_TEST": 1000,
                "MODEL.FCOS.PRE_NMS_TOPK_PER_LEVEL": True,
                "MODEL.FCOS.NMS_THRESH_TEST": 0.3,
                "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 0,
                "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
                "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
                "SOLVER.IMS_PER_BATCH": 32,
                "SOLVER.BASE_LR": 0.02,
                "SOLVER.WEIGHT_DECAY_NORM": 0.0001,
                "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
            },
        ),
        # QueryPose
        (
            "QueryPose/R_50_1x",
            "QueryPose/Base-QueryPose",
            {"SOLVER.MAX_ITER": 140000, "SOLVER.STEPS": (110000, 130000)},
        ),
        *_ablations("QueryPose", "R_50_1x", _QUERYPOSE_ABLATIONS),
        (
            "QueryPose/R_50_2x",
            "QueryPose/R_50_1x",
            {"SOLVER.MAX_ITER": 280000, "SOLVER.STEPS": (220000, 260000)},
        ),
        (
            "QueryPose/HRNet_W32_2x",
            "QueryPose/R_50_2x",
            {
                **_LEARNT_HRNET,
                "MODEL.WEIGHTS": "pose_hrnet_w32_384x288",
                "MODEL.BACKBONE.NAME": "build_hrnet_hrfpn_backbone",
            },
        ),
        (
            "QueryPose/HRNet_W48_2x",
            "QueryPose/HRNet_W32_2x",
            {
                "MODEL.WEIGHTS": "pose_hrnet_w48_384x288",
                "MODEL.HRNET.WIDTH": 48,
                "MODEL.HRNET.HRFPN_LATERALS": True,
            },
        ),
        *(
            (f"QueryPose/HRNet_{width}_2x_light", f"QueryPose/HRNet_{width}_2x", {"MODEL.QUERYPOSE.DYNAMIC_MLP": False})
            for width in ("W32", "W48")
        ),
        (
            "QueryPose/Swin_L_2x",
            "QueryPose/R_50_2x",
            {
                "MODEL.WEIGHTS": "swin_large_patch4_window7_224.ms_in22k",
                "MODEL.BACKBONE.NAME": "build_swin_fpn_backbone",
                "MODEL.BACKBONE.FREEZE_AT": 0,
            },
        ),
        *((f"QueryPose/{name}_crowdpose", f"QueryPose/{name}", _CROWDPOSE) for name in ("HRNet_W48_2x", "Swin_L_2x")),
    ],
)


@ROWS
def test_a_row_changes_its_keys_alone(config, base, changes):
    row, base = _flat_config(config), _flat_config(base)
    assert {key: value for key, value in row.items() if base[key] != value} == changes


def test_every_config_is_a_row():
    """A new file needs a row of ROWS, and each has only one."""
    paths = [path.relative_to("configs") for path in CONFIGS]
    files = [path.with_suffix("").as_posix() for path in paths if path.parts[0] not in OTHERS]
    bases = {f"{method}/Base-{method}" for method in {file.split("/")[0] for file in files}}
    assert sorted([*(config for config, _, _ in ROWS.args[1]), *bases]) == sorted(files)


@cache
def _flat_config(name):
    return _flat(load_once(f"configs/{name}.yaml"))


def _flat(node, prefix=""):
    flat = {}
    for key, value in node.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


@pytest.mark.parametrize(
    ("config", "parameters"),
    # reference/fcpose/full_model_counts.json, less the five constants sizes_of_interest
    [("R_50_3x_release", 41360997 - 5), ("R_101_3x_release", 60300901 - 5)],
)
def test_released_sizes(config, parameters):
    cfg = load_config(f"configs/FCPose/{config}.yaml", ["MODEL.DEVICE", "meta"])
    schema_to_cfg(cfg, COCO_PERSON)
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_keys_are_added_to_detectron2s_own_config():
    cfg = get_cfg()
    add_dynpose_config(cfg)
    cfg.merge_from_file("configs/FCPose/R_50_3x.yaml")
    assert cfg.MODEL.FCPOSE.MAX_SAMPLES == 50


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["MODEL.FCPOSE.MAX_SAMPEL", "3"],
            "unknown config key MODEL.FCPOSE.MAX_SAMPEL; did you mean MODEL.FCPOSE.MAX_",
        ),
        (["SOLVER.OPTIMISER", "SGD"], "did you mean SOLVER.OPTIMIZER"),
        (["XYZZY", "1"], "unknown config key XYZZY; dynpose/config/defaults.py lists"),
        (["MODEL.FCPOSE.MAX_SAMPLES", "many"], "MODEL.FCPOSE.MAX_SAMPLES"),
        (["MODEL.DEVICE"], "KEY VALUE pairs, got 1 words"),
    ],
)
def test_faulty_overrides(opts, message):
    with pytest.raises(ConfigError, match=message):
        load_config("configs/FCPose/R_50_3x.yaml", opts)


def test_faulty_files(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such config file"):
        load_config(str(tmp_path / "nothing.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("MODEL: [\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml: "):
        load_config(str(broken))
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("VERSION: 2\nMODEL:\n  FCPOSE:\n    REFINMENT: none\n")
    with pytest.raises(ConfigError, match=r"unknown\.yaml: unknown config key .*REFINMENT; did you mean"):
        load_config(str(unknown))
    orphan = tmp_path / "orphan.yaml"
    orphan.write_text("_BASE_: missing.yaml\n")
    with pytest.raises(ConfigError, match=r"orphan\.yaml: .*missing\.yaml"):
        load_config(str(orphan))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": ""}, "a.yaml: the file is empty; write"),
        ({"a": "# nothing\n"}, "a.yaml: the file is empty"),
        ({"a": "- 1\n"}, "a.yaml: the file holds a list"),
        ({"a": "words"}, "a.yaml: the file holds a str"),
        (
            {"a": "_BASE_: a.yaml\n"},
            r"_BASE_ leads back to the file itself: .*a\.yaml -> .*a\.yaml; remove one of them",
        ),
        ({"a": "_BASE_: b.yaml\n", "b": "_BASE_: [c.yaml]\n", "c": "_BASE_: a.yaml\n"}, r"a\.y.* -> .*c\.y.* -> .*a"),
        ({"a": "_BASE_: http://localhost:9/b.yaml\n"}, "_BASE_ http://localhost:9/b.yaml is a URL, which is not read"),
        ({"a": "_BASE_: gone.yaml\n"}, r"a\.yaml: _BASE_ .*gone\.yaml does not exist; correct the path"),
        ({"a": "_BASE_: 3\n"}, "_BASE_ is 3; write the path"),
        ({"a": "SEED: 1\nMODEL:\n  DEVICE: cpu\n  DEVICE: cuda\n"}, "key 'DEVICE' occurs twice in .*line 4"),
        ({"a": "_BASE_: b.yaml\n", "b": "SEED: 1\nSEED: 2\n"}, r"b\.yaml: key 'SEED' occurs twice"),
        ({"a": "MODEL: {\n"}, r"a\.yaml: while parsing .*; correct the file"),
        ({"a": "SEED: 1\nMODEL: {DEVICE: cpu}\nSEED: 2\n"}, "key 'SEED' occurs twice in .*line 3, column 1"),
        ({"a": "[" * 3000}, r"a\.yaml: values are nested too deeply"),
        ({"a": "MODEL: &m {DEVICE: *m}\n"}, r"a\.yaml: "),
        ({"a": "5: 3\n"}, "the key 5 is not a name but a int; keys are names"),
        ({"a": "MODEL: {5: 3}\n"}, "the key 5 is not a name but a int; keys are names"),
        ({"a": "MODEL: 5\n"}, "a.yaml: .{20,420}$"),
    ],
)  # fmt: skip
def test_files_that_would_be_raw_errors_or_read_otherwise(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(str(tmp_path / "a.yaml"))
    assert "\n" not in str(error.value)


def test_a_base_of_a_base(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("SEED: 3\nMODEL: {DEVICE: cpu}\n")
    (tmp_path / "b.yaml").write_text("_BASE_: sub/c.yaml\nSEED: 2\n")
    (tmp_path / "a.yaml").write_text("_BASE_: [b.yaml, sub/c.yaml]\nMODEL: &m {DEVICE: cuda}\n")
    cfg = load_config(str(tmp_path / "a.yaml"))
    assert (cfg.SEED, cfg.MODEL.DEVICE) == (3, "cuda")


def test_a_config_of_version_1_is_upgraded(tmp_path):
    """As detectron2 does, whose version 2 has renamed the key; every node is a plain one."""
    (tmp_path / "a.yaml").write_text("VERSION: 1\nTEST: {DETECTIONS_PER_IMG: 7}\n")
    cfg = load_config(str(tmp_path / "a.yaml"))
    assert (cfg.VERSION, cfg.TEST.DETECTIONS_PER_IMAGE) == (2, 7)
    assert {type(cfg), type(cfg.MODEL), type(cfg.MODEL.RPN)} == {CfgNode}


def test_a_config_runs_no_code(tmp_path):
    path, made = tmp_path / "evil.yaml", tmp_path / "made"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml: could not determine a constructor"):
        load_config(str(path))
    assert not made.exists()
