"""HRNet, DLA, Swin and networks by name as detectron2 backbones: shapes, sizes, frozen stages, and FCPose on each."""

import pytest
import timm
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import ImageList
from small_models import image, one_person, people, small_config, small_model
from torch import nn

from dynpose.config import ConfigError, read_key
from dynpose.export.capture import captured
from dynpose.modeling.backbone import DLA, HRFPN, HRNet, Swin, Timm, build_backbone
from dynpose.modeling.backbone.branches import concat_branches
from dynpose.modeling.backbone.swin import PaddedSwinBlock

SMALL = ["MODEL.HRNET.WIDTH", "18", "MODEL.SWIN.SIZE", "tiny", "MODEL.BACKBONE.FREEZE_AT", "0"]
# a block that is skipped at random has no gradient
SMALL += ["MODEL.SWIN.DROP_PATH_RATE", "0.0", "MODEL.TIMM.NAME", "convnext_atto"]
FINE = ["MODEL.FPN.IN_FEATURES", "['res2', 'res3', 'res4', 'res5']"]
REAL_TIME = ["MODEL.FCOS.IN_FEATURES", "['p3', 'p4', 'p5']", "MODEL.FCOS.SIZES_OF_INTEREST", "[64, 128]"]
P3_TO_P7 = {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
P2_TO_P5 = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
RES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
BUILDERS = {
    "build_fcos_resnet_fpn_backbone": ([], P3_TO_P7),
    "build_fcos_hrnet_fpn_backbone": ([], P3_TO_P7),
    "build_fcos_dla_fpn_backbone": ([], P3_TO_P7),
    "build_fcos_swin_fpn_backbone": ([], P3_TO_P7),
    "build_fcos_timm_fpn_backbone": ([], P3_TO_P7),
    "build_hrnet_fpn_backbone": (FINE, P2_TO_P5),
    "build_dla_fpn_backbone": (FINE, P2_TO_P5),
    "build_swin_fpn_backbone": (FINE, P2_TO_P5),
    "build_timm_fpn_backbone": (FINE, P2_TO_P5),
    "build_hrnet_hrfpn_backbone": ([], P2_TO_P5),
    "build_hrnet_concat_backbone": ([], {"concat": 4}),
    "build_timm_concat_backbone": ([], {"concat": 4}),
    "build_hrnet_backbone": ([], RES),
    "build_dla_backbone": ([], RES),
    "build_swin_backbone": ([], RES),
    "build_timm_backbone": ([], RES),
}
BODIES = {
    "hrnet": lambda **kw: HRNet(18, **kw),
    "dla": lambda **kw: DLA(34, **kw),
    "swin": lambda **kw: Swin("tiny", **kw),
    "timm": lambda **kw: Timm("convnext_atto", **kw),
    "timm with activations in its norms": lambda **kw: Timm("regnetx_002", **kw),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def build(name, *opts):
    torch.manual_seed(0)
    return build_backbone(small_config("configs/FCPose/Base-FCPose.yaml", "MODEL.BACKBONE.NAME", name, *SMALL, *opts))


def padded(height, width, divisibility):
    pixels = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return ImageList.from_tensors([pixels], divisibility).tensor


def check_shapes(maps, shapes, size):
    assert list(maps) == list(shapes)
    for level, shape in shapes.items():
        expected = [-(-side // shape.stride) for side in size]
        assert [maps[level].shape[1], *maps[level].shape[-2:]] == [shape.channels, *expected], level


@pytest.mark.parametrize("name", BUILDERS)
def test_shapes_of_any_image_size_and_gradients(name):
    opts, strides = BUILDERS[name]
    backbone = build(name, *opts)
    shapes = backbone.output_shape()
    assert {level: shape.stride for level, shape in shapes.items()} == strides
    with torch.no_grad():
        check_shapes(backbone.eval()(padded(96, 160, backbone.size_divisibility)), shapes, (96, 160))
    images = padded(100, 133, backbone.size_divisibility)
    maps = backbone.train()(torch.cat([images, images.flip(3)]))
    check_shapes(maps, shapes, (128, 160))
    # other numbers for each cell, so that no normalisation makes their sum constant
    sum((value.square() * torch.rand_like(value)).sum() for value in maps.values()).backward()
    for parameter_name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name
        else:
            # the way to HRNet's finest output, which a pyramid from P3 has no use for
            assert "stage4.2.fuse_layers.0." in parameter_name
            assert strides == P3_TO_P7


def test_real_time_levels():
    """FCPose section 4.3: P6 and P7 are removed, and no parameters of theirs remain."""
    whole, real_time = build("build_fcos_dla_fpn_backbone"), build("build_fcos_dla_fpn_backbone", *REAL_TIME)
    assert list(real_time.output_shape()) == ["p3", "p4", "p5"]
    # two 3x3 convolutions of 64 channels with bias
    assert count(whole) - count(real_time) == 2 * (64 * 64 * 9 + 64)
    with pytest.raises(ValueError, match=r"MODEL\.FCOS\.IN_FEATURES must have both or none of p6 and p7"):
        build("build_fcos_dla_fpn_backbone", "MODEL.FCOS.IN_FEATURES", "['p3', 'p4', 'p5', 'p6']")


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: HRNet(32), 29_305_536),
        (lambda: HRNet(48), 65_325_120),
        # the releases have 41,728 and 297,472 more, in projections whose output they throw away
        (lambda: DLA(34), 15_270_832 - 41_728),
        # as published, 22,036,632, less the classifier
        (lambda: DLA(60), 22_036_632 - 1024 * 1000 - 1000),
        # as published, 196,532,476, less the classifier and the norm before it
        (lambda: Swin("large"), 196_532_476 - 1536 * 1000 - 1000 - 2 * 1536),
    ],
)
def test_parameter_counts(make, parameters):
    with torch.device("meta"):
        assert count(make().body) == parameters


@pytest.mark.parametrize("kind", BODIES)
def test_frozen_stages_stay_as_they_are(kind):
    torch.manual_seed(0)
    backbone = BODIES[kind](freeze_at=2)
    constant = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    # batch norms of a frozen stage are buffers alone
    constant |= {name for name, module in backbone.named_modules() if isinstance(module, FrozenBatchNorm2d)}
    expected = {
        "hrnet": ("body.conv1", "body.bn1", "body.conv2", "body.bn2", "body.layer1."),
        "dla": ("body.base_layer.", "body.level0.", "body.level1.", "body.level2."),
        "swin": ("body.patch_embed.", "body.layers.0."),
        "timm": ("body.stem_0.", "body.stem_1.", "body.stages_0."),
        "timm with activations in its norms": ("body.stem.", "body.s1."),
    }[kind]
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(expected) for name in constant)
    assert all(any(name.startswith(stage) for name in constant) for stage in expected)
    assert not any(name.startswith(expected) for name in trained)

    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1e-3)
    maps = backbone.train()(torch.randn(2, 3, 64, 64))
    sum(value.square().sum() for value in maps.values()).backward()
    optimizer.step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith(expected) for name in changed)


def test_freeze_at_below_one_freezes_nothing():
    assert all(parameter.requires_grad for parameter in DLA(34, freeze_at=-1).parameters())


@pytest.mark.parametrize("kind", ["hrnet", "dla"])
def test_norms(kind):
    classes = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm, "FrozenBN": FrozenBatchNorm2d}
    for norm, expected in classes.items():
        with torch.device("meta"):
            backbone = BODIES[kind](norm=norm)
        norms = [module for module in backbone.modules() if hasattr(module, "running_mean")]
        assert norms
        assert {type(module) for module in norms} == {expected}
    with pytest.raises(ValueError, match="norm: expected one of 'BN', 'SyncBN', 'FrozenBN', got 'GN'"):
        BODIES[kind](norm="GN")


@torch.no_grad()
def test_frozen_norms_keep_their_activation():
    """detectron2 treats timm's BatchNormAct2d as a norm without an activation."""
    torch.manual_seed(0)
    plain, frozen = (Timm("regnetx_002", norm=norm).eval() for norm in ("BN", "FrozenBN"))
    missing, unexpected = frozen.load_state_dict(plain.state_dict(), strict=False)
    assert not missing
    assert all(key.endswith("num_batches_tracked") for key in unexpected)
    images = torch.randn(1, 3, 64, 64)
    for name, value in plain(images).items():
        torch.testing.assert_close(frozen(images)[name], value)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HRNet(33), r"width: expected one of 18, 30, 32, .* got 33"),
        (lambda: DLA(50), r"depth: expected one of 34, 60, 102, 169, got 50"),
        (lambda: Timm("convnext_huge"), r"name: timm .* has no network 'convnext_huge'"),
        (
            lambda: Timm("vit_tiny_patch16_224"),
            r"name: .*'vit_tiny_patch16_224' have strides 16, 16, 16; choose a network with 4, 8, 16 and 32",
        ),
        (lambda: Timm("dla34", drop_path_rate=0.1), r"drop_path_rate: expected 0 for dla34, .* got 0\.1"),
        (lambda: Timm("hrnet_w18_small", freeze_at=2), r"freeze_at: expected 0 for this network"),
        (lambda: Swin("huge"), r"size: expected one of 'tiny', 'small', 'base', 'large', got 'huge'"),
        (
            lambda: DLA(34, out_features=["res3", "res4"]),
            r"out_features: expected neighbours .* got \['res3', 'res4'\]",
        ),
        (lambda: DLA(34, out_features=[]), r"out_features: expected neighbours .* got \[\]"),
    ],
)
def test_faulty_arguments(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert not isinstance(error.value, ConfigError)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("hrnet", "MODEL.HRNET.WIDTH", 33),
        ("hrnet", "MODEL.HRNET.NORM", "GN"),
        ("hrnet", "MODEL.FPN.IN_FEATURES", ["res3", "res4"]),
        ("dla", "MODEL.DLA.DEPTH", 50),
        ("dla", "MODEL.DLA.NORM", "foo"),
        ("dla", "MODEL.FPN.IN_FEATURES", []),
        ("dla", "MODEL.FPN.FUSE_TYPE", "foo"),
        ("dla", "MODEL.FPN.NORM", "foo"),
        ("dla", "MODEL.FPN.OUT_CHANNELS", 0),
        ("dla", "MODEL.BACKBONE.NAME", "build_foo_backbone"),
        ("swin", "MODEL.SWIN.SIZE", "huge"),
        ("swin", "MODEL.SWIN.WINDOW_SIZE", 0),
        ("swin", "MODEL.SWIN.DROP_PATH_RATE", 1.5),
        ("timm", "MODEL.TIMM.NAME", "convnext_huge"),
        ("timm", "MODEL.TIMM.NORM", "foo"),
        ("timm", "MODEL.TIMM.DROP_PATH_RATE", -0.1),
        ("resnet", "MODEL.FPN.IN_FEATURES", ["res9"]),
    ],
)
def test_faulty_keys(kind, key, value):
    cfg = small_config("configs/FCPose/Base-FCPose.yaml", "MODEL.BACKBONE.NAME", f"build_fcos_{kind}_fpn_backbone")
    node, _, name = key.rpartition(".")
    read_key(cfg, node)[name] = value
    with torch.device("meta"), pytest.raises(ConfigError, match=key):
        build_backbone(cfg)


@torch.no_grad()
def test_a_network_by_its_name_is_timms():
    """Each output is the last map of its stride; EfficientNet has several blocks of one."""
    ours = Timm("efficientnet_b0").eval()
    theirs = timm.create_model("efficientnet_b0", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict(ours.body.state_dict())
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for value, expected in zip(ours(images).values(), theirs(images), strict=True):
        torch.testing.assert_close(value, expected)


def test_stochastic_depth_of_a_network_by_its_name():
    rates = [m.drop_prob for m in Timm("convnext_atto", drop_path_rate=0.2).modules() if hasattr(m, "drop_prob")]
    assert rates[-1] == pytest.approx(0.2)
    assert not any(hasattr(module, "drop_prob") for module in Timm("convnext_atto").modules())


@torch.no_grad()
def test_swin_is_timms_where_windows_divide_the_map():
    ours = Swin("tiny").eval()
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=0).eval()
    theirs.load_state_dict(ours.body.state_dict(), strict=False)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    maps = ours(images)
    expected = theirs.patch_embed(images)
    # timm does not shift the windows of the last stage, one window at 224 pixels
    for name, stage in zip(("res2", "res3", "res4"), theirs.layers):
        expected = stage(expected)
        torch.testing.assert_close(maps[name], ours.norms[name](expected).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_swin_windows_do_not_join_opposite_ends():
    """timm issue 2438. 8 rows, window 7, shift 3: the windows are rows 0-2 and 3-7, and so for the columns."""
    torch.manual_seed(0)
    block = PaddedSwinBlock(
        dim=4, input_resolution=(56, 56), num_heads=1, window_size=7, shift_size=3, dynamic_mask=True
    ).eval()
    maps = torch.randn(1, 8, 8, 4)
    changed = maps.clone()
    changed[:, 7] = torch.randn(8, 4)
    difference = (block(changed) - block(maps)).abs().amax(dim=(0, 3))
    assert (difference[:3] == 0).all()
    assert (difference[3:] > 0).all()
    changed = maps.clone()
    changed[:, :, 0] = torch.randn(8, 4)
    difference = (block(changed) - block(maps)).abs().amax(dim=(0, 3))
    assert (difference[:, :3] > 0).all()
    assert (difference[:, 3:] == 0).all()


class SwinOfPatches(nn.Module):
    """A block on patches of 4 x 4 pixels, with the arguments that exports have."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, kernel_size=4, stride=4)
        self.block = PaddedSwinBlock(
            4, (14, 14), num_heads=1, window_size=5, shift_size=2, dynamic_mask=True, always_partition=True
        )

    def forward(self, images, image_sizes):
        return self.block(self.patches(images).permute(0, 2, 3, 1)), image_sizes


@torch.no_grad()
def test_swin_windows_in_an_onnx_file(tmp_path):
    """Sizes that windows of 5 cells divide and others: torch.onnx rounds a negative quotient towards zero."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = SwinOfPatches().eval()
    program = captured(network, (torch.randn(2, 3, 32, 40), torch.tensor([[32, 40], [32, 40]])), 8)
    torch.onnx.export(program, f=tmp_path / "swin.onnx", dynamo=True, verbose=False, optimize=False)
    session = onnxruntime.InferenceSession(tmp_path / "swin.onnx")
    names = [each.name for each in session.get_inputs()]
    for size in ((80, 80), (24, 56), (16, 128)):
        images = torch.randn(1, 3, *size)
        found = session.run(None, dict(zip(names, (images.numpy(), torch.tensor([size]).numpy()))))[0]
        torch.testing.assert_close(torch.from_numpy(found), network(images, None)[0], rtol=0, atol=1e-5)


def test_concatenation_is_by_pixel_centres():
    """Half-pixel bilinear: 0, 1 becomes 0, 1/4, 3/4, 1."""
    fine = torch.full((1, 1, 4, 4), 7.0)
    coarse = torch.tensor([0.0, 1.0]).expand(2, 2).reshape(1, 1, 2, 2)
    joined = concat_branches([fine, coarse])
    assert torch.equal(joined[:, :1], fine)
    assert torch.equal(joined[0, 1], torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, 4))


def test_hrfpn_without_and_with_laterals():
    bottom_up = HRNet(18)
    plain, laterals = (HRFPN(bottom_up, bottom_up.output_shape(), 32, laterals=choice) for choice in (False, True))
    # 270 = 18 + 36 + 72 + 144 channels reduced to 32; four 3x3 convolutions, with bias in the plain form alone
    assert count(plain) - count(bottom_up) == (270 * 32 + 32) + 4 * (32 * 32 * 9 + 32)
    assert count(laterals) - count(bottom_up) == (270 * 32 + 32) + 4 * 32 * 32 * 9 + (36 + 72 + 144) * 32


TRAINED = {
    "HRNet": ("configs/FCPose/R_50_1x.yaml", ["MODEL.BACKBONE.NAME", "build_fcos_hrnet_fpn_backbone", *SMALL]),
    "Swin": ("configs/FCPose/R_50_1x.yaml", ["MODEL.BACKBONE.NAME", "build_fcos_swin_fpn_backbone", *SMALL]),
    "ConvNeXt": ("configs/FCPose/R_50_1x.yaml", ["MODEL.BACKBONE.NAME", "build_fcos_timm_fpn_backbone", *SMALL]),
    "DLA-34": ("configs/FCPose/DLA_34_4x.yaml", []),
    "DLA-60": ("configs/FCPose/DLA_60_4x.yaml", []),
    "quick": ("configs/quick/fcpose_dla34.yaml", []),
}


@pytest.mark.parametrize("choice", TRAINED)
def test_fcpose_trains_and_predicts(choice):
    config, opts = TRAINED[choice]
    model = small_model(config, *opts)
    losses = model.train()([image(one_person(), 0), image(people([], []), 1)])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    # the other parameters are constant: a distributed run would wait for the gradient of any other
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.eval().detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{**image(one_person(size=(100, 133))), "height": 200, "width": 266}])
    assert len(output["instances"]) > 0
    assert output["instances"].image_size == (200, 266)


def test_real_time_schedule_and_sizes():
    """FCPose section 4.3 and Table 7."""
    cfg = small_config("configs/FCPose/DLA_60_4x.yaml")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == (0.01, (300000, 340000), 360000)
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING) == ((128, 736), "range")
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (512, 736)
    assert (cfg.MODEL.DLA.DEPTH, list(cfg.MODEL.FCOS.IN_FEATURES)) == (60, ["p3", "p4", "p5"])
