"""The keypoint decoder against the released code's first stage, torch.nn and loops over parts and people by hand."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from reference_rule import assert_matches, rule_input, rule_state_dict
from torch import nn

from dynpose.config import add_dynpose_config
from dynpose.data.schema import COCO_PERSON, CROWDPOSE_PERSON
from dynpose.modeling.querypose.interactions import (
    Attention,
    DynamicChannelMLP,
    DynamicSpatialMLP,
    SpatialAttention,
    normalize_rows,
)
from dynpose.modeling.querypose.keypoint_decoder import (
    ConcatIteration,
    KeypointStage,
    SelectiveIteration,
    SumIteration,
)
from dynpose.modeling.querypose.parts import divide_into_parts

# Released names of a stage's modules and ours
RELEASED_NAMES = {
    "inst_convs": "convs",
    "pose_decoder_inst_interact": "instance_interaction",
    "inst_norm": "instance_norm",
    "linear1": "instance_ffn.linear1",
    "linear2": "instance_ffn.linear2",
    "norm2": "instance_ffn.norm",
    "part_embed_generator.upsample.0": "interaction.upsample",
    "part_embed_generator.upsample.1": "interaction.norm",
    "part_embed_generator.LSA_conv": "interaction.attention",
    "part_embed_generator.fc": "interaction.project",
    "updater.fc1": "iteration.fc1",
    "updater.norm_fc1": "iteration.norm",
    "updater.fc2": "iteration.fc2",
    "kps_self_attn": "part_attention",
    "self_attn_norm": "part_norm",
    "linear1_l": "part_ffn.linear1",
    "linear2_l": "part_ffn.linear2",
    "norm2_l": "part_ffn.norm",
    "residual_filter": "instance_residuals",
    "fc_coord": "coord_heads",
    "fc_sigma": "sigma_heads",
}
PARTS = ((0, 3), (4,), (2, 1, 5))
INTERACTIONS = ["spegm", "mhsa", "dynamic_channel", "dynamic_spatial", "spatial_attention"]
# every row of tables 1, 2a and 2b
VARIANTS = [
    *({"query": "part", "interaction": name, "iteration": "none"} for name in INTERACTIONS),
    *({"query": "instance", "interaction": name, "iteration": "none"} for name in INTERACTIONS),
    *({"iteration": name} for name in ("sum", "concat", "selective")),
    {"iteration": "selective", "dynamic_mlp": False},
    {"query": "instance", "interaction": "pool", "iteration": "none", "dynamic_mlp": False},
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_stage(**kwargs):
    """A stage of d = 8, d_p = 4 and RoIs of 4 x 4 cells."""
    torch.manual_seed(0)
    sizes = {
        "hidden_dim": 8,
        "part_dim": 4,
        "num_convs": 2,
        "conv_dim": 6,
        "resolution": 4,
        "dynamic_dim": 3,
        "num_heads": 2,
        "feedforward_dim": 12,
        "part_feedforward_dim": 10,
    }
    return KeypointStage(**{"parts": PARTS, **sizes, **kwargs})


def run(stage, num_rows, **kwargs):
    """Both steps on random people."""
    features, queries = stage.update_instances(random(num_rows, 8, 4, 4), random(num_rows, 8, seed=1))
    part_queries = None
    if stage.part_query_shape:
        part_queries = random(num_rows, *stage.part_query_shape, seed=2).requires_grad_()
    return stage.decode(features, queries, part_queries), queries, part_queries


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.fixture(scope="module")
def outputs(test_data):
    return np.load(test_data / "reference/querypose_first/outputs.npz")


@pytest.fixture(scope="module")
def weights(test_data):
    """The fixture's weights of both decoders' first stage."""
    shapes = json.loads((test_data / "reference/querypose_first/keys.json").read_text())
    chosen = ("head.head_series.0.", "head.pose_head_series.0.", "init_proposal_features", "part_query")
    return rule_state_dict({key: shape for key, shape in shapes.items() if key.startswith(chosen)}, {})


@pytest.fixture(scope="module")
def maps():
    return [rule_input(410 + i, (2, 256, 128 // 2**i, 192 // 2**i)) for i in range(2, 6)]


def pool(maps, boxes, resolution):
    scales = [1 / 2**i for i in range(2, 2 + len(maps))]
    pooler = ROIPooler(resolution, scales, sampling_ratio=2, pooler_type="ROIAlignV2")
    return pooler(maps, [Boxes(torch.from_numpy(image_boxes)) for image_boxes in boxes])


@pytest.fixture(scope="module")
def instance_queries(weights, maps, outputs):
    """The queries behind the first box decoder, (40, 256), by torch.nn.functional; held against their recorded sums."""
    prefix = "head.head_series.0."
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])

    def linear(x, name):
        return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

    attention = nn.MultiheadAttention(256, 8)
    attention.load_state_dict(
        {key.removeprefix("self_attn."): value for key, value in own.items() if key.startswith("self_attn.")}
    )
    cells = pool(maps, outputs["full/eval/initial_boxes_xyxy"], 7).flatten(2).transpose(1, 2)
    with torch.no_grad():
        queries = weights["init_proposal_features.weight"][:, None].expand(-1, 2, -1)
        queries = norm(queries + attention(queries, queries, queries)[0], "norm1").transpose(0, 1).flatten(0, 1)
        dynamic = linear(queries, "inst_interact.dynamic_layer")
        cells = norm(cells @ dynamic[:, : 256 * 64].view(-1, 256, 64), "inst_interact.norm1").relu()
        cells = norm(cells @ dynamic[:, 256 * 64 :].view(-1, 64, 256), "inst_interact.norm2").relu()
        learned = norm(linear(cells.flatten(1), "inst_interact.out_layer"), "inst_interact.norm3").relu()
        queries = norm(queries + learned, "norm2")
        queries = norm(queries + linear(linear(queries, "linear1").relu(), "linear2"), "norm3")
    assert_matches(queries[None], outputs, "full/eval/stage0/instance_query_after_box_head", rel=1e-5)
    return queries


@pytest.fixture(scope="module", params=["full", "light"])
def released(request, weights):
    """A stage with the fixture's weights, and the version's name."""
    stage = KeypointStage(parts=divide_into_parts(COCO_PERSON), dynamic_mlp=request.param == "full").eval()
    state, prefix = {}, "head.pose_head_series.0."
    for key in stage.state_dict():
        module, name = key.rsplit(".", 1)
        ours = max((ours for ours in RELEASED_NAMES.values() if key.startswith(ours + ".")), key=len)
        theirs = next(theirs for theirs, other in RELEASED_NAMES.items() if other == ours)
        linear = ".linear" if ours in ("coord_heads", "sigma_heads") else ""
        state[key] = weights[prefix + theirs + module.removeprefix(ours) + linear + "." + name]
    stage.load_state_dict(state)
    return request.param, stage


def test_stage_is_the_released_one(released, weights, maps, outputs, instance_queries):
    name, stage = released
    recorded = f"{name}/eval/stage0"
    part_queries = weights["part_query.weight"].expand(40, -1, -1)
    with torch.no_grad():
        roi_features = pool(maps[:1], outputs[f"{recorded}/boxes"], 14)
        features, queries = stage.update_instances(roi_features, instance_queries)
        embeddings = stage.interaction(features, part_queries)
        updated = stage.iteration(embeddings + stage.instance_residual(queries), part_queries)
        prediction = stage.decode(features, queries, part_queries)
    assert_matches(queries[None], outputs, f"{recorded}/instance_query_passed_on", rel=1e-5)
    assert_matches(embeddings.transpose(0, 1), outputs, f"{recorded}/spegm_out", rel=1e-5)
    assert_matches(updated.transpose(0, 1), outputs, f"{recorded}/updater_out", rel=1e-5)
    assert_matches(prediction.part_queries.transpose(0, 1), outputs, f"{recorded}/part_query_out", rel=1e-5)
    assert_matches(prediction.sigmas.view(2, 20, 17, 2), outputs, f"{recorded}/sigma", rel=1e-5)
    poses = torch.cat([prediction.keypoints, 1 - prediction.sigmas.mean(dim=2, keepdim=True)], dim=2)
    assert_matches(poses.view(2, 20, 17, 3), outputs, f"{recorded}/pose_rel_xy_score", rel=1e-5)
    change = (queries - instance_queries).abs().max().item()
    assert change == pytest.approx(outputs[f"{recorded}/instance_query_changed_by_pose_head"].item(), rel=1e-5)


def test_parameter_counts(released, test_data):
    name, stage = released
    counts = json.loads((test_data / "reference/querypose_first/config.json").read_text())["param_counts"][name]
    assert count(stage.convs) == counts["inst_convs (6 3x3 convs)"] == 11_799_296
    assert count(stage.interaction) == counts["spegm_module (deconv+bn+attention conv+fc)"] == 1_098_119
    assert count(stage.iteration) == counts["selective_updater_used_only"]
    assert count(stage.part_attention, stage.part_norm, stage.part_ffn) == counts["part_self_attention+ffn"]
    assert count(stage.instance_residuals) == counts["residual_filter"]
    assert count(stage.coord_heads) == counts["fc_coord"]
    assert count(stage.sigma_heads) == counts["fc_sigma"]
    unused = counts["selective_updater"] - counts["selective_updater_used_only"]
    if name == "full":
        assert count(stage.instance_interaction) == 21_267_840
        assert count(stage.instance_norm, stage.instance_ffn) == counts["pose_head_ffn"] == 1_051_904
    assert count(stage) == counts["pose_head_per_stage"] - unused


def test_attention_maps_have_sum_one():
    module = SpatialAttention(8, 4, num_maps=3).eval()
    maps = module.maps(random(5, 8, 6, 7))
    assert maps.shape == (5, 3, 6, 7)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(5, 3))
    assert (maps > 0).all()


def test_part_embedding_is_what_its_map_looks_at():
    """A map that is one at a cell gives that cell's features, a flat one their mean."""
    module = SpatialAttention(4, 4, num_maps=2, norm="FrozenBN")
    features = random(3, 4, 5, 5)
    with torch.no_grad():
        nn.init.zeros_(module.attention.weight)
        # the first map follows the first channel, steeply
        module.attention.weight[0, 0, 1, 1] = 1e4
        nn.init.eye_(module.project.weight)
        nn.init.zeros_(module.project.bias)
        upsampled = F.conv_transpose2d(features, module.upsample.weight, stride=2, padding=1).relu()
        embeddings = module(features)
    assert upsampled.shape == (3, 4, 10, 10)
    for row in range(3):
        y, x = divmod(upsampled[row, 0].argmax().item(), 10)
        torch.testing.assert_close(embeddings[row, 0], upsampled[row, :, y, x], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(embeddings[row, 1], upsampled[row].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "expected"), [("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("FrozenBN", FrozenBatchNorm2d)]
)
def test_norms(norm, expected):
    module = small_stage(norm=norm)
    assert isinstance(module.interaction.norm, expected)
    assert run(module.eval(), 3)[0].keypoints.isfinite().all()


def test_gates_weigh_embeddings_and_queries():
    """Eq. 3 with gates that are the same for all, and that are given by the bias."""
    module = SelectiveIteration(4)
    gates = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
    embeddings, queries = random(2, 3, 4), random(2, 3, 4, seed=1)
    with torch.no_grad():
        nn.init.zeros_(module.fc2.weight)
        module.fc2.bias.copy_(gates.logit())
    torch.testing.assert_close(module(embeddings, queries), gates[:4] * embeddings + gates[4:] * queries)


def test_gates_come_from_the_sum():
    module = SelectiveIteration(16)
    embeddings, queries = random(2, 3, 16), random(2, 3, 16, seed=1)
    hidden = F.layer_norm((embeddings + queries) @ module.fc1.weight.T, (4,)).relu()
    embedding_gate, query_gate = (hidden @ module.fc2.weight.T + module.fc2.bias).sigmoid().split(16, dim=2)
    expected = embedding_gate * embeddings + query_gate * queries
    torch.testing.assert_close(module(embeddings, queries), expected)


def test_sum_and_concatenation():
    embeddings, queries = random(2, 3, 4), random(2, 3, 4, seed=1)
    torch.testing.assert_close(SumIteration(4)(embeddings, queries), embeddings + queries)
    module = ConcatIteration(4)
    expected = embeddings @ module.fc.weight[:, :4].T + queries @ module.fc.weight[:, 4:].T + module.fc.bias
    torch.testing.assert_close(module(embeddings, queries), expected)


@pytest.mark.parametrize("iteration", ["none", "sum", "concat", "selective"])
def test_what_the_next_stage_gets(iteration):
    prediction, _, part_queries = run(small_stage(iteration=iteration), 3)
    assert torch.equal(prediction.part_queries, part_queries) == (iteration == "none")
    # the learned queries learn either way
    assert torch.autograd.grad(prediction.keypoints.sum(), part_queries)[0].abs().sum() > 0


def test_keypoints_are_regressed_by_their_parts_layers():
    """Part after part, put into the order of the schema, with a bias each."""
    stage = small_stage()
    for head in (*stage.coord_heads, *stage.sigma_heads):
        nn.init.normal_(head.bias)
    part_queries = random(4, 3, 4)
    keypoints, sigmas = stage.regress(part_queries)
    for index, part in enumerate(PARTS):
        query = part_queries[:, index]
        coords = query @ stage.coord_heads[index].weight.T / query.norm(dim=1, keepdim=True)
        coords = coords + stage.coord_heads[index].bias
        uncertainties = stage.sigma_heads[index](query).sigmoid()
        for position, keypoint in enumerate(part):
            own = slice(2 * position, 2 * position + 2)
            torch.testing.assert_close(keypoints[:, keypoint], coords[:, own])
            torch.testing.assert_close(sigmas[:, keypoint], uncertainties[:, own])


def test_length_of_a_query_does_not_move_keypoints():
    stage, part_queries = small_stage(), random(4, 3, 4)
    keypoints, sigmas = stage.regress(part_queries)
    longer_keypoints, longer_sigmas = stage.regress(3 * part_queries)
    torch.testing.assert_close(longer_keypoints, keypoints)
    assert (longer_sigmas - sigmas).abs().max() > 0.01


def test_query_of_no_length_is_finite():
    stage, part_queries = small_stage(), torch.zeros(1, 3, 4, requires_grad=True)
    keypoints, sigmas = stage.regress(part_queries)
    for index, part in enumerate(PARTS):
        torch.testing.assert_close(keypoints[0, list(part)].flatten(), stage.coord_heads[index].bias)
    assert torch.autograd.grad((keypoints + sigmas).sum(), part_queries)[0].isfinite().all()


def test_parts_attend_to_each_other():
    """As nn.TransformerEncoderLayer does, with people as its batch."""
    stage, part_queries = small_stage().eval(), random(5, 3, 4)
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=10, dropout=0.0, batch_first=True)
    layer.self_attn.load_state_dict(stage.part_attention.state_dict())
    layer.norm1.load_state_dict(stage.part_norm.state_dict())
    for name, module in stage.part_ffn.named_children():
        if name != "dropout":
            getattr(layer, {"norm": "norm2"}.get(name, name)).load_state_dict(module.state_dict())
    torch.testing.assert_close(stage.relate_parts(part_queries), layer(part_queries))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_people_do_not_see_each_other(variant):
    stage = small_stage(**variant).eval()
    together, updated, _ = run(stage, 4)
    features, queries = random(4, 8, 4, 4), random(4, 8, seed=1)
    part_queries = random(4, *stage.part_query_shape, seed=2) if stage.part_query_shape else None
    for row in range(4):
        own = slice(row, row + 1)
        own_features, own_query = stage.update_instances(features[own], queries[own])
        alone = stage.decode(own_features, own_query, None if part_queries is None else part_queries[own])
        torch.testing.assert_close(own_query, updated[own])
        for one, many in zip(alone, together):
            if many is not None:
                torch.testing.assert_close(one, many[own])


def test_light_version_leaves_instance_queries_alone():
    queries = random(3, 8)
    assert small_stage(dynamic_mlp=False).update_instances(random(3, 8, 4, 4), queries)[1] is queries
    assert not torch.equal(small_stage().update_instances(random(3, 8, 4, 4), queries)[1], queries)


@pytest.mark.parametrize("num_rows", [0, 1, 3])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_parameter_has_a_gradient(variant, num_rows):
    """In training, as DistributedDataParallel needs; from no people one of zero, and no new statistics."""
    stage = small_stage(**variant).train()
    before = {key: value.clone() for key, value in stage.named_buffers()}
    prediction, _, part_queries = run(stage, num_rows)
    assert prediction.keypoints.shape == prediction.sigmas.shape == (num_rows, 6, 2)
    loss = prediction.keypoints.sum() + (prediction.sigmas**2).sum()
    if prediction.part_queries is not None:
        assert prediction.part_queries.shape == part_queries.shape
        loss = loss + (prediction.part_queries**3).sum()
    loss.backward()
    assert loss.isfinite()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert num_rows or (parameter.grad == 0).all(), name
    for key, value in stage.named_buffers():
        assert value.isfinite().all()
        if "running" in key or "num_batches" in key:
            assert torch.equal(value, before[key]) == (num_rows == 0)


def test_no_rows_among_processes_that_share_statistics(monkeypatch):
    """Every process takes part in the collective; only statistics of other processes' rows are kept."""

    class Shared(nn.SyncBatchNorm):
        def forward(self, x):
            self.called = True
            self.running_mean.mul_(0.9).add_(self.mean)
            self.running_var.mul_(0.9).add_(self.var)
            return x

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
    for var, expected in ((torch.nan, ([5.0, 5.0], [2.0, 2.0])), (0.1, ([5.5, 5.5], [1.9, 1.9]))):
        norm = Shared(2)
        norm.mean, norm.var = 0.0 if var != var else 1.0, var
        norm.running_mean.fill_(5)
        norm.running_var.fill_(2)
        assert normalize_rows(norm, torch.zeros(0, 2, 3, 3)).shape == (0, 2, 3, 3)
        assert norm.called
        torch.testing.assert_close((norm.running_mean, norm.running_var), tuple(map(torch.tensor, expected)))


@pytest.mark.parametrize("num_rows", [0, 1, 4])
@pytest.mark.parametrize("training", [False, True])
def test_normalize_rows_is_the_norm(num_rows, training):
    norm, plain = (nn.BatchNorm2d(3).train(training) for _ in range(2))
    x = random(num_rows, 3, 2, 2)
    torch.testing.assert_close(normalize_rows(norm, x), plain(x))
    if num_rows:
        torch.testing.assert_close(norm.state_dict(), plain.state_dict())


@pytest.mark.parametrize(
    "parts",
    [
        [[0]],
        divide_into_parts(CROWDPOSE_PERSON),
        *(divide_into_parts(COCO_PERSON, scheme) for scheme in "abcd"),
        [[k] for k in range(133)],
    ],
    ids=lambda parts: f"M={len(parts)}",
)
def test_any_number_of_parts_and_keypoints(parts):
    stage = small_stage(parts=parts)
    assert stage.part_query_shape == (len(parts), 4)
    prediction, _, _ = run(stage, 2)
    assert prediction.keypoints.shape == (2, sum(map(len, parts)), 2)
    assert prediction.part_queries.shape == (2, len(parts), 4)
    assert ((prediction.sigmas > 0) & (prediction.sigmas < 1)).all()


def test_an_instance_query_is_no_part_query():
    stage = small_stage(query="instance", iteration="none")
    assert stage.part_query_shape is None
    assert run(stage, 2)[0].part_queries is None
    # one head for all, in the schema's order whatever the parts are
    assert [tuple(head.weight.shape) for head in stage.coord_heads] == [(12, 8)]
    assert stage.order.tolist() == [0, 1, 2, 3, 4, 5]


def test_baseline_regresses_from_the_mean():
    """Table 2b: convolutions and global average pooling; queries make no difference."""
    stage = small_stage(query="instance", interaction="pool", iteration="none", dynamic_mlp=False)
    roi_features = random(3, 8, 4, 4)
    features, _ = stage.update_instances(roi_features, random(3, 8))
    keypoints, sigmas, _ = stage.decode(features, random(3, 8))
    mean = F.adaptive_avg_pool2d(stage.convs(roi_features), 1).flatten(1)
    (coord_head,), (sigma_head,) = stage.coord_heads, stage.sigma_heads
    expected = F.linear(mean / mean.norm(dim=1, keepdim=True), coord_head.weight, coord_head.bias)
    torch.testing.assert_close(keypoints.flatten(1), expected)
    torch.testing.assert_close(sigmas.flatten(1), sigma_head(mean).sigmoid())
    assert {name.split(".")[0] for name, _ in stage.named_parameters()} == {"convs", "coord_heads", "sigma_heads"}


def test_attention_is_self_attention_of_queries_and_cells():
    module = Attention(8, 4, num_heads=2)
    features, queries = random(3, 8, 4, 4), random(3, 5, 4, seed=1)
    cells = torch.stack([module.project(features[:, :, y, x]) for y in range(4) for x in range(4)], dim=1)
    tokens = torch.cat([queries, cells], dim=1)
    expected = module.attention(tokens, tokens, tokens)[0][:, :5]
    torch.testing.assert_close(module(features, queries), expected)


@pytest.mark.parametrize("query_dim", [4, 8])
def test_dynamic_channel_mlp_one_query_after_the_other(query_dim):
    module = DynamicChannelMLP(8, query_dim, dynamic_dim=3, resolution=4)
    features, queries = random(2, 8, 4, 4), random(2, 5, query_dim, seed=1)
    embeddings = module(features, queries)
    assert embeddings.shape == (2, 5, query_dim)
    for row in range(2):
        for part in range(5):
            query = module.expand(queries[row, part])[None]
            expected = module.reduce(module.interaction(roi_features=features[row][None], queries=query))
            torch.testing.assert_close(embeddings[row, part], expected[0])


def test_dynamic_spatial_mlp_one_query_after_the_other():
    module = DynamicSpatialMLP(8, 5, dynamic_dim=3, resolution=4)
    features, queries = random(2, 8, 4, 4), random(2, 6, 5, seed=1)
    embeddings = module(features, queries)
    assert embeddings.shape == (2, 6, 5)
    for row in range(2):
        for part in range(6):
            generated = module.dynamic_layer(queries[row, part])
            first, second = generated[:48].view(16, 3), generated[48:].view(3, 16)
            channels = []
            for channel in features[row].view(8, 16):
                hidden = F.layer_norm(channel @ first, (3,)).relu()
                channels.append(F.layer_norm(hidden @ second, (16,)).relu())
            expected = F.layer_norm(module.out_layer(torch.cat(channels)), (5,)).relu()
            torch.testing.assert_close(embeddings[row, part], expected)


def test_one_map_for_all_parts():
    """Global spatial attention gives all parts of a person the same."""
    stage = small_stage(interaction="spatial_attention")
    assert stage.interaction(random(3, 8, 4, 4)).shape == (3, 1, 4)
    assert small_stage().interaction(random(3, 8, 4, 4)).shape == (3, 3, 4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_autocast(variant):
    """Keypoints and sigmas are float32, and near those without."""
    stage = small_stage(**variant).eval()
    expected, _, _ = run(stage, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction, _, _ = run(stage, 3)
    assert prediction.keypoints.dtype == prediction.sigmas.dtype == torch.float32
    # layer norms of so few channels make single ones differ by more
    assert (prediction.keypoints - expected.keypoints).abs().mean() < 0.03
    assert (prediction.sigmas - expected.sigmas).abs().mean() < 0.03


def test_dropout_is_for_training():
    stage = small_stage(dropout=0.5)
    first, second = run(stage, 3)[0], run(stage, 3)[0]
    assert not torch.equal(first.keypoints, second.keypoints)
    stage.eval()
    first, second = run(stage, 3)[0], run(stage, 3)[0]
    assert torch.equal(first.keypoints, second.keypoints)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": "person"}, r"query: expected one of 'part', 'instance', got 'person'"),
        ({"interaction": "SPEGM"}, r"interaction: expected one of 'spegm', .* got 'SPEGM'"),
        ({"iteration": "gru"}, r"iteration: expected one of 'none', .* got 'gru'"),
        ({"query": "instance"}, r"iteration: expected 'none' with query 'instance', .* got 'selective'"),
        ({"interaction": "pool"}, r"interaction: 'pool' .* needs query 'instance', got 'part'"),
        ({"norm": "GN"}, r"norm: expected one of 'BN', 'SyncBN', 'FrozenBN', got 'GN'"),
        ({"part_dim": 5}, r"part_dim: expected a multiple of num_heads, 2, got 5"),
    ],
)
def test_faulty_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_stage(**arguments)


def test_from_config():
    cfg = get_cfg()
    add_dynpose_config(cfg)
    querypose = cfg.MODEL.QUERYPOSE
    querypose.HIDDEN_DIM, querypose.PART_DIM, querypose.NUM_HEADS, querypose.DROPOUT = 8, 4, 2, 0.25
    querypose.NUM_KEYPOINT_CONVS, querypose.KEYPOINT_CONV_DIM, querypose.KEYPOINT_POOLER_RESOLUTION = 2, 6, 4
    querypose.DYNAMIC_DIM, querypose.FEEDFORWARD_DIM, querypose.PART_FEEDFORWARD_DIM = 3, 12, 10
    querypose.ITERATION, querypose.INTERACTION, querypose.KEYPOINT_NORM = "concat", "spatial_attention", "FrozenBN"
    stage = KeypointStage(cfg, parts=PARTS)
    expected = small_stage(iteration="concat", interaction="spatial_attention", norm="FrozenBN", dropout=0.25)
    assert str(stage) == str(expected)
    assert stage.part_query_shape == (3, 4)
    querypose.QUERY, querypose.ITERATION, querypose.INTERACTION, querypose.DYNAMIC_MLP = (
        "instance",
        "none",
        "pool",
        False,
    )
    assert KeypointStage(cfg, parts=PARTS).part_query_shape is None
