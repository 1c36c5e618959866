"""The FCPose meta-architecture: every design choice trains and predicts; the release's faults stay away."""

from dataclasses import replace

import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import ImageList
from small_models import SCHEMA, image, one_person, people, small_config, small_model

from dynpose.config import ConfigError, load_config
from dynpose.layers import KPNetSpec
from dynpose.layers.kp_net import nets
from dynpose.modeling.fcos import LocationConv
from dynpose.modeling.fcpose import fcpose

RELEASE = "configs/FCPose/R_50_3x_release.yaml"
PAPER = "configs/FCPose/R_50_3x.yaml"
CHOICES = {
    "paper": [],
    "paper's cell": ["MODEL.FCPOSE.HEATMAP_TARGET", "paper"],
    "up-sampled loss": ["MODEL.FCPOSE.HEATMAP_LOSS", "upsampled"],
    "expected distance": ["MODEL.FCPOSE.OFFSET_LOSS", "expected_distance"],
    "offsets from the basis": ["MODEL.FCPOSE.OFFSET_SOURCE", "basis"],
    "no refinement": ["MODEL.FCPOSE.REFINEMENT", "none"],
    "deconvolution": ["MODEL.FCPOSE.REFINEMENT", "deconv"],
    "offsets per instance": ["MODEL.FCPOSE.REFINEMENT", "instance"],
    "depth 1": ["MODEL.KP_NET.DEPTH", "1"],
    "coordinates last": ["MODEL.KP_NET.COORDS_POSITION", "last", "MODEL.KP_NET.COORDS_SIGN", "1"],
    "two classes": ["MODEL.FCOS.NUM_CLASSES", "2"],
}


def losses_of(model, inputs):
    losses = model.train()(inputs)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_trains_and_predicts(choice):
    model = small_model(PAPER, *CHOICES[choice])
    losses = losses_of(model, [image(one_person(), 0), image(people([], []), 1)])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_heatmap"] > 0
    assert ("loss_offset" in losses) == (choice not in ("no refinement", "deconvolution"))
    # FrozenBatchNorm and the frozen stem have no gradient; everything else has
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert model.controller.linear.weight.grad.abs().sum() > 0

    model.eval().detector.decoder.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([{**image(one_person()), "height": 64, "width": 256}])
    instances = output["instances"]
    assert 0 < len(instances) <= 100
    assert instances.image_size == (64, 256)
    assert instances.pred_keypoints.shape == (len(instances), SCHEMA.num_keypoints, 3)
    confidence = instances.pred_keypoints[..., 2]
    assert ((confidence > 0) & (confidence <= 1)).all()


@pytest.mark.parametrize("config", [PAPER, RELEASE])
def test_no_people_and_no_keypoints(config):
    """AdelaiDet 488: an image without positives falls through a bare except and dies."""
    model = small_model(config)
    no_people = losses_of(model, [image(people([], []))])
    assert all(loss.isfinite() for loss in no_people.values())
    assert no_people["loss_heatmap"] == no_people["loss_offset"] == 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    unlabelled = losses_of(model, [image(one_person(visibility=0))])
    assert unlabelled["loss_heatmap"] == unlabelled["loss_offset"] == 0
    assert unlabelled["loss_fcos_box"] > 0


@pytest.mark.parametrize("config", [PAPER, RELEASE])
def test_every_image_of_a_batch_has_keypoint_losses(config):
    """The release runs over the first two images of a batch alone."""
    model = small_model(config)
    no_people, person = people([], []), one_person()
    first = losses_of(model, [image(person, 3), image(no_people, 0), image(no_people, 1)])
    third = losses_of(model, [image(no_people, 0), image(no_people, 1), image(person, 3)])
    for name in ("loss_heatmap", "loss_offset"):
        assert first[name] > 0
        assert third[name].item() == pytest.approx(first[name].item(), rel=1e-5 if config == PAPER else 1e-3), name


@pytest.mark.parametrize("config", [PAPER, RELEASE])
def test_batched_inference_equals_single(config):
    """The release overwrites the offset map inside its loop over the images."""
    model = small_model(config).eval()
    model.detector.decoder.score_thresh = 0.0
    model.detector.decoder.post_nms_topk = 10
    inputs = [image(one_person(), seed) for seed in range(3)]
    with torch.no_grad():
        together = model(inputs)
        alone = [model([single])[0] for single in inputs]
    for a, b in zip(together, alone):
        a, b = a["instances"], b["instances"]
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.pred_keypoints, b.pred_keypoints, rtol=1e-3, atol=1e-3)


def test_losses_do_not_depend_on_other_copies_of_the_batch():
    """Doubling the batch leaves the mean losses where they were."""
    model = small_model(PAPER, "MODEL.FCPOSE.BASIS.NORM", "", "MODEL.FCPOSE.MAX_SAMPLES", 0)
    single = losses_of(model, [image(one_person())])
    double = losses_of(model, [image(one_person()), image(one_person())])
    for name in single:
        assert double[name].item() == pytest.approx(single[name].item(), rel=1e-4), name


def test_chunks_do_not_change_losses_or_gradients(monkeypatch):
    results = []
    for limit in (2**26, 1):
        monkeypatch.setattr(nets, "_MAX_MAP_VALUES", limit)
        model = small_model(RELEASE)
        losses = losses_of(model, [image(one_person())])
        results.append((losses, model.controller.linear.weight.grad))
    (whole, whole_grad), (chunked, chunked_grad) = results
    for name in whole:
        assert chunked[name].item() == pytest.approx(whole[name].item(), rel=1e-5)
    torch.testing.assert_close(chunked_grad, whole_grad, rtol=1e-4, atol=1e-6)


def _with_perfect_networks(model, point):
    """Networks whose every heatmap peaks at ``point``: -|dx| - |dy| from ReLUs of the two coordinates."""
    spec = model.spec
    assert (spec.depth, spec.width) == (2, 8)
    params = torch.zeros(spec.num_params)
    (w0, b0), (w1, _) = spec.unpack(params[None])
    cx, cy = point
    for row, (axis, sign) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1))):
        w0[0, row, axis] = sign
        b0[0, row] = -sign * (cx, cy)[axis]
    w1[0, :, :4] = -50.0
    torch.nn.init.zeros_(model.controller.linear.weight)
    model.controller.linear.bias.data[: spec.num_params] = params


def test_a_peak_becomes_its_cell_centre_plus_offset():
    """Keypoint = cell centre + offset, in input pixels: worked out by hand from relative coordinates."""
    model = small_model(PAPER, "MODEL.KP_NET.DEPTH", 2, "MODEL.FCOS.SIZES_OF_INTEREST", "[64, 128, 256, 512]").eval()
    torch.nn.init.zeros_(model.refinement.conv.weight)
    # offsets of one keypoint kind: a quarter and minus an eighth of the stride of 8
    model.refinement.conv.bias.data[2:4] = torch.tensor([0.25, -0.125])
    # location minus cell = (16, -8) pixels, in units of the finest level's size of interest
    _with_perfect_networks(model, (16 / 64, -8 / 64))
    head = model.head
    torch.nn.init.zeros_(head.cls_logits.weight)
    torch.nn.init.zeros_(head.box_distances.weight)
    features = [torch.zeros(1, 64, s, s) for s in (16, 8, 4, 2, 1)]
    predictions = head(features)
    for level, logits in enumerate(predictions.logits):
        logits.fill_(-20)
        predictions.distances[level].fill_(3)
    predictions.logits[0][0, 0, 7, 9] = 4.0  # the location (76, 60)
    (instances,) = model.forward_inference(ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)]), features, predictions)
    assert len(instances) == 1
    assert instances.pred_boxes.tensor.tolist() == [[52, 36, 100, 84]]
    # its cell is 16 to the left and 8 below: (60, 68)
    assert instances.pred_keypoints[0, 0, :2].tolist() == [60.0, 68.0]
    assert instances.pred_keypoints[0, 1, :2].tolist() == [62.0, 67.0]


def test_deconvolution_starts_as_bilinear_upsampling():
    model = small_model(PAPER, "MODEL.FCPOSE.REFINEMENT", "deconv")
    logits = torch.randn(2, SCHEMA.num_keypoints, 6, 5)
    fine = model.refinement.upsample(logits)
    expected = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    # the transposed convolution sees zeros beyond the border, interpolation repeats it
    torch.testing.assert_close(fine[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])


def test_instance_offsets_are_a_generated_convolution():
    model = small_model(PAPER, "MODEL.FCPOSE.REFINEMENT", "instance").eval()
    torch.manual_seed(1)
    features = [torch.randn(2, 64, s, s) for s in (16, 8, 4, 2, 1)]
    predictions = model.head(features)
    locations = model.detector.locations(features)
    index = torch.tensor([3, 300, 511, 600])
    networks, params = model._generate(model._maps(features)[1], predictions.box_tower, locations, index)
    params = torch.randn_like(params)
    # the same convolution, run densely by the operator as a network of depth 1
    dense = replace(networks, params=params, spec=model.refinement.conv_spec).heatmaps()
    cells = torch.randint(0, 256, (4, SCHEMA.num_keypoints))
    sparse = model.refinement.offsets_at_peaks(networks, params, None, cells)
    kind = torch.arange(SCHEMA.num_keypoints)
    expected = dense.unflatten(1, (-1, 2)).flatten(3)[torch.arange(4)[:, None], kind, :, cells] * 8
    torch.testing.assert_close(sparse, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.refinement.offsets_at_peaks(networks, params, None, cells), sparse)


def test_paper_parameter_counts():
    spec = KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17)
    assert spec.num_params == 2737
    # the reference counts five constants in
    assert sum(p.numel() for p in LocationConv(256, 2737, 3).parameters()) == 6308790 - 5


def test_sampling_limits_the_networks(monkeypatch):
    made = []
    monkeypatch.setattr(fcpose.FCPose, "_generate", _spy(fcpose.FCPose._generate, made))
    for limit in (1, 3, 0):
        losses_of(small_model(PAPER, "MODEL.FCPOSE.MAX_SAMPLES", limit), [image(one_person())])
    assert made[:2] == [1, 3]
    assert made[2] > 3


def _spy(function, made):
    def wrapped(self, maps, box_tower, locations, index):
        made.append(len(index))
        return function(self, maps, box_tower, locations, index)

    return wrapped


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["MODEL.FCPOSE.REFINEMENT", "offsets"], "MODEL.FCPOSE.REFINEMENT"),
        (["MODEL.FCPOSE.HEATMAP_LOSS", "l2"], "MODEL.FCPOSE.HEATMAP_LOSS"),
        (["MODEL.FCPOSE.OFFSET_LOSS", "l1"], "MODEL.FCPOSE.OFFSET_LOSS"),
        (["MODEL.FCPOSE.OFFSET_SOURCE", "p4"], "MODEL.FCPOSE.OFFSET_SOURCE"),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64]"], "MODEL.FCOS.SIZES_OF_INTEREST"),
        (["MODEL.FCPOSE.REFINEMENT", "deconv", "MODEL.FCPOSE.DECONV_FACTOR", "3"], "MODEL.FCPOSE.DECONV_FACTOR"),
        (["MODEL.FCPOSE.HEATMAP_TARGET", "ceil"], "HEATMAP_TARGET"),
        (["MODEL.FCOS.CENTER_SAMPLING_RADIUS", -1.0], "MODEL.FCOS.CENTER_SAMPLING_RADIUS must be at least 0"),
        (["MODEL.FCPOSE.LAST_SIZE_OF_INTEREST", 0], "MODEL.FCPOSE.LAST_SIZE_OF_INTEREST must be above 0, got 0"),
        (["MODEL.FCPOSE.AUX_HEATMAP_SIGMAS", "[1.8, 0.0]"], "MODEL.FCPOSE.AUX_HEATMAP_SIGMAS must be above 0"),
        (["MODEL.FCPOSE.DISTANCE_NORM", 0.0], "MODEL.FCPOSE.DISTANCE_NORM must be above 0"),
        (["MODEL.FCPOSE.DECONV_FACTOR", 0], "MODEL.FCPOSE.DECONV_FACTOR must be above 0"),
        (["MODEL.FCPOSE.MAX_SAMPLES", -1], "MODEL.FCPOSE.MAX_SAMPLES must be at least 0"),
        (["MODEL.FCPOSE.OFFSET_RADIUS", -1], "MODEL.FCPOSE.OFFSET_RADIUS must be at least 0"),
        (["MODEL.FCPOSE.OFFSET_SCALE", -1.0], "MODEL.FCPOSE.OFFSET_SCALE must be at least 0"),
        (["MODEL.FCPOSE.CONTROLLER_KERNEL", 2], "MODEL.FCPOSE.CONTROLLER_KERNEL must be odd"),
        (["MODEL.FCPOSE.OFFSET_KERNEL", 2], "MODEL.FCPOSE.OFFSET_KERNEL must be odd"),
        (["MODEL.FCPOSE.BASIS.NORM", "sync"], "MODEL.FCPOSE.BASIS.NORM must be 'GN', .* got 'sync'"),
    ],
)
def test_wrong_choices_name_their_key(opts, named):
    with pytest.raises(ConfigError, match=named):
        small_model(PAPER, *opts)


def test_overfits_one_person():
    """Targets, losses and decoding fit together: the model overfits one image."""
    model = small_model(PAPER, "MODEL.FCPOSE.BASIS.NORM", "GN", "MODEL.FCPOSE.BASIS.CONVS_DIM", 32)
    data = image(one_person(61.3, 66.8))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    model.train()
    for _ in range(120):
        optimizer.zero_grad()
        sum(model([data]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        (output,) = model.eval()([data])
    instances = output["instances"]
    truth = data["instances"]
    assert instances.scores[0] > 0.5
    error = (instances.pred_keypoints[0, :, :2] - truth.gt_keypoints.tensor[0, :, :2]).norm(dim=1)
    assert error.max() < 1.5
    assert (instances.pred_boxes.tensor[0] - truth.gt_boxes.tensor[0]).abs().max() < 5


def test_default_predictor_of_detectron2(tmp_path):
    model = small_model(PAPER)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    cfg = small_config(PAPER, "MODEL.FCOS.SCORE_THRESH_TEST", 0.0, "INPUT.MIN_SIZE_TEST", 64)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    cfg.DATASETS.TEST = ()
    output = DefaultPredictor(cfg)(torch.zeros(100, 80, 3, dtype=torch.uint8).numpy())
    assert output["instances"].image_size == (100, 80)
    assert output["instances"].has("pred_keypoints")


def test_a_backbone_of_the_user_plugs_in():
    """The model asks the backbone for nothing but its feature maps."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone

    class Patches(Backbone):
        def __init__(self, cfg, input_shape):
            super().__init__()
            self.strides = {f"p{i}": 2**i for i in range(3, 8)}
            self.convs = torch.nn.ModuleDict({n: torch.nn.Conv2d(3, 64, s, s) for n, s in self.strides.items()})

        def forward(self, images):
            return {name: conv(images) for name, conv in self.convs.items()}

        def output_shape(self):
            return {name: ShapeSpec(channels=64, stride=s) for name, s in self.strides.items()}

        @property
        def size_divisibility(self):
            return 128

    if "Patches" not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(Patches)
    model = small_model(PAPER, "MODEL.BACKBONE.NAME", "Patches")
    losses = losses_of(model, [image(one_person())])
    assert all(loss.isfinite() for loss in losses.values())


def test_config_defaults_are_the_papers():
    cfg = load_config(PAPER)
    assert (cfg.MODEL.KP_NET.IN_CHANNELS, cfg.MODEL.KP_NET.WIDTH, cfg.MODEL.KP_NET.DEPTH) == (32, 32, 3)
    assert cfg.MODEL.FCPOSE.MAX_SAMPLES == 50
    assert cfg.MODEL.FCOS.SCORE_THRESH_TEST == 0.05
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (0.01, 16, 270000)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (320, 800)
