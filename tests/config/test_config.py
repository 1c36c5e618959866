"""Configs: every file loads, every fault names its key."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import ConfigError, add_dynpose_config, load_config
from dynpose.data import COCO_PERSON, schema_to_cfg

CONFIGS = sorted(Path("configs").rglob("*.yaml"))
ABLATIONS = sorted(Path("configs/FCPose/ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_loads(path):
    cfg = load_config(str(path))
    if path.parent.name == "custom":
        return  # named after a machine
    method = (path.stem if path.parent.name == "quick" else path.relative_to("configs").parts[0]).lower()
    assert method.startswith(cfg.MODEL.META_ARCHITECTURE.lower().removesuffix("released"))
    assert cfg.MODEL.KEYPOINT_ON


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_changes_the_keys_of_its_name(path):
    baseline, ablation = load_config("configs/FCPose/R_50_1x.yaml"), load_config(str(path))
    changed = {key for key, value in _flat(ablation).items() if _flat(baseline)[key] != value}
    key, _, value = path.stem.partition("_")
    name = {
        "channels": "MODEL.KP_NET.IN_CHANNELS",
        "width": "MODEL.KP_NET.WIDTH",
        "depth": "MODEL.KP_NET.DEPTH",
        "refinement": "MODEL.FCPOSE.REFINEMENT",
    }[key]
    assert changed == {name}
    assert str(_flat(ablation)[name]) == value


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("spatial", {"RECALIBRATION": ["spatial"]}),
        ("channel", {"RECALIBRATION": ["channel"]}),
        ("no_contrastive", {"CONTRASTIVE_LOSS_WEIGHT": 0.0}),
        ("spatial_no_contrastive", {"RECALIBRATION": ["spatial"], "CONTRASTIVE_LOSS_WEIGHT": 0.0}),
        ("channel_no_contrastive", {"RECALIBRATION": ["channel"], "CONTRASTIVE_LOSS_WEIGHT": 0.0}),
        ("channels_8", {"CHANNELS": 8}),
        ("channels_16", {"CHANNELS": 16}),
        ("channels_64", {"CHANNELS": 64}),
    ],
)
def test_an_ablation_of_cid_changes_that_alone(name, changes):
    """Tables 1 and 2 of the CID paper."""
    ablation = _flat(load_config(f"configs/CID/ablations/{name}.yaml"))
    baseline = _flat(load_config("configs/CID/HRNet_W32_35e.yaml"))
    assert {key: value for key, value in ablation.items() if baseline[key] != value} == {
        f"MODEL.CID.{key}": value for key, value in changes.items()
    }


_NO_ITERATION = {"ITERATION": "none"}
_INSTANCE = {"QUERY": "instance", **_NO_ITERATION}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
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
    ],
)
def test_an_ablation_of_querypose_changes_that_alone(name, changes):
    """Tables 1 to 3 of the QueryPose paper."""
    ablation = _flat(load_config(f"configs/QueryPose/ablations/{name}.yaml"))
    baseline = _flat(load_config("configs/QueryPose/R_50_1x.yaml"))
    assert {key: value for key, value in ablation.items() if baseline[key] != value} == {
        f"MODEL.QUERYPOSE.{key}": value for key, value in changes.items()
    }


@pytest.mark.parametrize(
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
            (f"CID/{name}_release", f"CID/{name}", {"MODEL.CID.INDEX_COORDINATES": True})
            for name in ("HRNet_W32_140e", "HRNet_W32_140e_coco_to_ochuman")
        ),
        *(
            (
                f"CID/{name}_release",
                f"CID/{name}",
                {"MODEL.CID.INDEX_COORDINATES": True, "INPUT.IGNORE_MASKS": False},
            )
            for name in ("HRNet_W32_140e_ochuman", "HRNet_W32_300e_crowdpose")
        ),
        (
            "CID/HRNet_W32_140e_paper",
            "CID/HRNet_W32_140e",
            {"MODEL.CID.CHANNEL_WEIGHTS": "feature", "MODEL.CID.HEATMAP_LOSS_NORM": "person"},
        ),
        (
            "CID/HRNet_W32_300e_crowdpose",
            "CID/HRNet_W32_140e",
            {
                "MODEL.CID.MIN_BOX_AREA": 0.0,
                "DATASETS.TRAIN": ("crowdpose_trainval",),
                "DATASETS.TEST": ("crowdpose_test",),
                "SOLVER.MAX_EPOCHS": 300,
                "SOLVER.STEPS_EPOCHS": [200, 260],
            },
        ),
    ],
)
def test_a_row_changes_its_keys_alone(config, base, changes):
    row, base = _flat(load_config(f"configs/{config}.yaml")), _flat(load_config(f"configs/{base}.yaml"))
    assert {key: value for key, value in row.items() if base[key] != value} == changes


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
