"""Batch normalisation folded into convolutions: where it is, where it must not be, and with which result."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from small_models import small_model
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from dynpose.data import COCO_PERSON
from dynpose.engine.folding import fold_batch_norms

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def with_statistics(model):
    """The model in eval mode, as if it were trained."""
    generator = torch.Generator().manual_seed(1)

    def values(like, low, high):
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    for module in model.modules():
        if isinstance(module, NORMS):
            module.running_mean.copy_(values(module.running_mean, -0.3, 0.3))
            module.running_var.copy_(values(module.running_var, 0.5, 2))
            module.weight.data.copy_(values(module.weight, 0.5, 1.5))
            module.bias.data.copy_(values(module.bias, -0.3, 0.3))
    return model.eval()


def folded(model, inputs):
    """Fold a copy; its results, the number of folded norms, and the number of those left."""
    copied = copy.deepcopy(model)
    number = fold_batch_norms(copied, lambda: copied(inputs[:, :, :8, :8]))
    with torch.no_grad():
        torch.testing.assert_close(copied(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    return number, sum(isinstance(module, NORMS) for module in copied.modules())


IMAGES = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), FrozenBatchNorm2d(4, eps=1e-2)),
        lambda: Conv2d(4, 6, 1, norm=nn.BatchNorm2d(6), activation=torch.relu),
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 4, stride=2), nn.BatchNorm2d(6, affine=True)),
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), BatchNormAct2d(6, act_layer=nn.SiLU)),
    ],
    ids=["sequence", "groups, frozen", "detectron2", "transposed", "timm"],
)
def test_it_is_folded(build):
    assert folded(with_statistics(build()), IMAGES) == (1, 0)


class TwoReaders(nn.Module):
    """The output of the convolution is used beside its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class TwoNorms(nn.Module):
    """A convolution for maps of two sizes, with a norm for each, as in a head over pyramid levels."""

    def __init__(self):
        super().__init__()
        self.conv, self.norms = nn.Conv2d(4, 4, 1), nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def forward(self, x):
        return self.norms[0](self.conv(x)).mean() + self.norms[1](self.conv(x[:, :, ::2]))


class TwoConvolutions(nn.Module):
    """A norm after two convolutions, of which one has another reader."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        first = self.first(x)
        return self.norm(first) + first + self.norm(self.second(x))


class SharedWeight(nn.Module):
    """Two convolutions with one weight, before one norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, stride=2), nn.BatchNorm2d(4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.norm(self.first(x)).sum((2, 3)) + self.norm(self.second(x)).sum((2, 3))


class WeightReadElsewhere(nn.Module):
    """The weight of the convolution is also a factor."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) * self.conv.weight.mean()


class TwiceTheBias(nn.Conv2d):
    """A convolution that does not add its bias as it is."""

    def forward(self, x):
        return functional.conv2d(x, self.weight, 2 * self.bias)


def with_hook(module):
    """The module, whose output other code keeps."""
    module.kept = []
    module.register_forward_hook(lambda module, inputs, output: module.kept.append(output))
    return module


@pytest.mark.parametrize(
    "build",
    [
        TwoReaders,
        SharedWeight,
        WeightReadElsewhere,
        lambda: nn.Sequential(TwiceTheBias(4, 4, 1), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(spectral_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(with_hook(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), with_hook(nn.BatchNorm2d(4))),
        TwoNorms,
        TwoConvolutions,
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), type("Mine", (nn.BatchNorm2d,), {})(4)),
    ],
    ids=[
        "two readers",
        "shared weight",
        "weight read elsewhere",
        "another bias",
        "computed weight",
        "hook of the convolution",
        "hook of the norm",
        "two norms",
        "two convolutions",
        "relu between",
        "before",
        "groups, transposed",
        "unknown class",
    ],
)
def test_it_is_left(build):
    model = with_statistics(build())
    norms = sum(isinstance(module, NORMS) for module in model.modules())
    assert folded(model, IMAGES) == (0, norms)


def test_a_norm_of_two_names_is_replaced_under_both():
    model = nn.Module()
    model.conv, model.unused, model.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), None
    model.norm = model.unused
    model.forward = lambda x: model.norm(model.conv(x))
    model = with_statistics(model)
    with torch.no_grad():
        expected = model(IMAGES)
        assert fold_batch_norms(model, lambda: model(IMAGES)) == 1
        torch.testing.assert_close(model(IMAGES), expected)


def test_a_norm_of_the_batch_is_left():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert fold_batch_norms(model, lambda: model(IMAGES)) == 0


@pytest.mark.parametrize(
    ("config", "opts"),
    [
        ("FCPose/R_50_3x_release.yaml", ["MODEL.FCPOSE.AUX_HEATMAPS", "False"]),
        ("InsPose/R_50_100e.yaml", []),
        ("InsPose/R_50_3x_release.yaml", []),
        ("FCPose/DLA_34_4x.yaml", []),
    ],
)
def test_all_norms_of_the_methods_are_folded(config, opts):
    model = with_statistics(small_model(config, *opts, schema=COCO_PERSON))
    copied = copy.deepcopy(model)
    data = [{"image": torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8), "height": 128, "width": 128}]
    fold_batch_norms(copied, lambda: copied(data))
    assert not any(isinstance(module, NORMS) for module in copied.modules())
    images = model.preprocess_image(data).tensor
    with torch.no_grad():
        before, after = model.backbone(images), copied.backbone(images)
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4 * before[name].abs().max())
