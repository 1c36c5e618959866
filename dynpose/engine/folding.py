"""Folding batch normalisation into the convolutions before it.

Which normalisation follows which convolution is observed in a forward pass, so that it works for every network:
detectron2's ``Conv2d`` with a norm, sequences, pairs of attributes as in torchvision's networks, and timm's layers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["fold_batch_norms"]

# Classes whose forward pass is known; that of a subclass may do more
_PLAIN = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, NaiveSyncBatchNorm)
_WITH_ACTIVATION = ("BatchNormAct2d", "SyncBatchNormAct")
_TIMM = "timm.layers.norm_act"


def fold_batch_norms(model: nn.Module, run: Callable[[], Any]) -> int:
    """Fold batch normalisation in place: scales go into the weights of the convolution, shifts into its bias.

    A normalisation is folded if, in the pass, it is applied to the output of one convolution only, nothing else reads
    that output, and it uses the statistics of training. Predictions stay equal up to rounding. Names in the state dict
    change.

    Args:
        model (nn.Module): in eval mode.
        run (callable): runs the model once, on an input of any size.

    Returns:
        int: number of folded normalisations.
    """
    observer = _Observer()
    with torch.no_grad(), observer:
        run()
    convolutions = {id(module.weight): module for module in model.modules() if _is_convolution(module)}
    norms = {id(module.running_mean): module for module in model.modules() if _is_batch_norm(module)}
    pairs = [pair for pair in observer.pairs() if pair[0] in convolutions and pair[1] in norms]
    for weight, mean in pairs:
        _fold(convolutions[weight], norms[mean])
        _replace(model, norms[mean], _without_norm(norms[mean]))
    return len(pairs)


def _is_convolution(module):
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1
    return isinstance(module, nn.Conv2d)


def _is_batch_norm(module):
    return type(module) in _PLAIN or _has_activation(module)


def _has_activation(module):
    # timm is not imported for a model that has no layer of it
    timm = sys.modules.get(_TIMM)
    return timm is not None and type(module) in [getattr(timm, name) for name in _WITH_ACTIVATION]


def _fold(convolution, norm):
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )


def _without_norm(norm):
    return nn.Sequential(norm.drop, norm.act) if _has_activation(norm) else nn.Identity()


def _replace(model, old, new):
    """Replace a module wherever it is a child."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


@dataclass
class _Output:
    """What a convolution has computed."""

    tensor: Tensor
    weight: Tensor
    readers: int = 0
    means: list[Tensor] = field(default_factory=list)


class _Observer(TorchFunctionMode):
    """Records which batch normalisations read which outputs of convolutions."""

    def __init__(self):
        super().__init__()
        # tensors are kept, since an id is unique only while its object lives
        self._outputs: dict[int, _Output] = {}
        self._means_elsewhere: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = [self._outputs[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._outputs]
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            for output in read:
                output.readers += 1
        if func is functional.batch_norm:
            self._add_norm(args, kwargs, read)
        elif func in (functional.conv2d, functional.conv_transpose2d):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self._outputs[id(result)] = _Output(result, weight)
        return result

    def _add_norm(self, args, kwargs, read):
        values = dict(zip(("input", "running_mean", "running_var", "weight", "bias", "training"), args), **kwargs)
        if values["running_mean"] is None:
            return
        uses_statistics = not values.get("training", False)
        if uses_statistics and read and values["input"] is read[0].tensor:
            read[0].means.append(values["running_mean"])
        else:
            self._means_elsewhere.append(values["running_mean"])

    def pairs(self) -> Iterator[tuple[int, int]]:
        """The ids of weight and mean of each convolution and normalisation that always follow each other."""
        means_of: dict[int, set[int]] = {}
        weights_of: dict[int, set[int]] = {id(mean): {0} for mean in self._means_elsewhere}
        for output in self._outputs.values():
            means = {id(mean) for mean in output.means}
            # 0: something else than a batch normalisation
            means_of.setdefault(id(output.weight), set()).update(means if means and output.readers == 1 else {0})
            for mean in means:
                weights_of.setdefault(mean, set()).add(id(output.weight))
        for weight, means in means_of.items():
            only = next(iter(means))
            if len(means) == 1 and only and weights_of[only] == {weight}:
                yield weight, only
