"""Folding batch normalisation into the convolutions before it.

Which normalisation follows which convolution is observed in a forward pass, so that it works for every network:
detectron2's ``Conv2d`` with a norm, sequences, pairs of attributes as in torchvision's networks, and timm's layers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
    that output or the weight of the convolution, and it uses the statistics of training. Modules with hooks and
    convolutions that share a weight are left. Predictions stay equal up to rounding. Names in the state dict change.

    Args:
        model (nn.Module): in eval mode.
        run (callable): runs the model once, on an input of any size.

    Returns:
        int: number of folded normalisations.
    """
    convolutions = _by_tensor(filter(_is_convolution, model.modules()), "weight")
    norms = _by_tensor(filter(_is_batch_norm, model.modules()), "running_mean")
    observer = _Observer(convolutions)
    with torch.no_grad(), observer:
        run()
    pairs = [pair for pair in observer.pairs() if pair[0] in convolutions and pair[1] in norms]
    for weight, mean in pairs:
        _fold(convolutions[weight], norms[mean])
        _replace(model, norms[mean], _without_norm(norms[mean]))
    return len(pairs)


def _by_tensor(modules, name):
    """The modules by the id of a tensor, without those that share it."""
    modules = list(modules)
    counts = Counter(id(getattr(module, name)) for module in modules)
    return {key: module for module in modules if counts[key := id(getattr(module, name))] == 1}


def _is_convolution(module):
    if _has_hooks(module) or "weight" not in module._parameters:
        return False
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1
    return isinstance(module, nn.Conv2d)


def _is_batch_norm(module):
    return (type(module) in _PLAIN or _has_activation(module)) and not _has_hooks(module)


def _has_hooks(module):
    """Whether other code reads or replaces the inputs, outputs or weights, as torch.nn.utils.weight_norm does."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


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
        # named_children lists a module once, even if it has two names
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


@dataclass
class _Output:
    """What a convolution has computed."""

    tensor: Tensor
    weight: Tensor
    readers: int = 0
    means: list[Tensor] = field(default_factory=list)


class _Observer(TorchFunctionMode):
    """Records which batch normalisations read which outputs of convolutions."""

    def __init__(self, convolutions: Mapping[int, nn.Module]):
        super().__init__()
        self._convolutions = convolutions
        # tensors are kept, since an id is unique only while its object lives
        self._outputs: dict[int, _Output] = {}
        self._means_elsewhere: list[Tensor] = []
        # ids of weights that are read otherwise than by their convolution
        self._weights_elsewhere: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = [self._outputs[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._outputs]
        weights = {id(leaf) for leaf in tree_leaves((args, kwargs))} & self._convolutions.keys()
        if func in (functional.conv2d, functional.conv_transpose2d):
            values = dict(zip(("input", "weight", "bias"), args), **kwargs)
            self._outputs[id(result)] = _Output(result, values["weight"])
            if self._has_bias_of_module(values):
                weights.discard(id(values["weight"]))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            for output in read:
                output.readers += 1
            self._weights_elsewhere |= weights
        if func is functional.batch_norm:
            self._add_norm(args, kwargs, read)
        return result

    def _has_bias_of_module(self, values):
        """Whether a convolution adds the bias of its module as it is; the class of the module may do otherwise."""
        module = self._convolutions.get(id(values["weight"]))
        return module is not None and values.get("bias") is module.bias

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
            is_pair = len(means) == 1 and only and weights_of[only] == {weight}
            if is_pair and weight not in self._weights_elsewhere:
                yield weight, only
