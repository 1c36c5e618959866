"""The optimizers of a config, YAML or lazy: SGD, Adam and AdamW, with clipped gradients."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from dynpose.config import ConfigError, check_choice, check_from_0_to_1, check_not_negative, check_positive

_ADAPTIVE = {"ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}
_CLIP_TYPES = ("value", "norm", "full_model")
# Optimizers and devices with a fused step: one pass over the memory on a CPU, a few kernels on a GPU
_FUSED_CLASSES, _FUSED_DEVICES = (torch.optim.SGD, *_ADAPTIVE.values()), ("cpu", "cuda")
# Added to a norm that divides, as in torch.nn.utils.clip_grad_norm_
_NORM_FLOOR = 1e-6


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build ``SOLVER.OPTIMIZER``: "SGD" (detectron2's), "ADAM" or "ADAMW".

    Its step is PyTorch's fused one on a CPU or an NVIDIA GPU, which differs from the others by float32 rounding. It
    loads the state of any of them.

    Args:
        cfg (CfgNode): supports ``SOLVER.LR_FACTORS`` and the clip type "full_model" in addition to detectron2's keys.
        model (nn.Module)

    Returns:
        torch.optim.Optimizer

    Raises:
        ConfigError: a value is not among its choices or out of range, or an entry of LR_FACTORS matches no parameter
            name.

    Example::

        >>> cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_FACTORS = "ADAMW", [["flow", 10.0]]
        >>> [group["lr"] / cfg.SOLVER.BASE_LR for group in build_optimizer(cfg, model).param_groups]
        [1.0, 10.0]
    """
    _check_config(cfg)
    name, solver, clip = cfg.SOLVER.OPTIMIZER, cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    if name == "SGD":
        without_clipping = cfg.clone()
        without_clipping.defrost()
        without_clipping.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = build_sgd(without_clipping, model)
    else:
        params = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        optimizer = _ADAPTIVE[name](params, lr=solver.BASE_LR)
    if solver.LR_FACTORS:
        _set_lr_factors(optimizer, model, solver.LR_FACTORS)
    if clip.ENABLED:
        _clip_gradients(optimizer, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE)
    _fuse(optimizer)
    return optimizer


def build_clipped_optimizer(
    *,
    params: list[dict[str, Any]],
    optimizer_class: type[torch.optim.Optimizer],
    clip_type: str | None = None,
    clip_value: float = 1.0,
    norm_type: float = 2.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """Build an optimizer that clips gradients, for a lazy config.

    Args:
        params (list[dict]): groups of parameters, see :func:`pose_optimizer_params`.
        optimizer_class (type): of ``torch.optim``.
        clip_type (str | None): "value" and "norm" clip the gradient of each parameter, "full_model" the norm of all
            gradients together; None = no clipping.
        clip_value (float): the bound.
        norm_type (float): of the norm.
        **options: arguments of ``optimizer_class``, such as ``lr``. Without ``fused`` and ``foreach``, SGD, Adam and
            AdamW have a fused step, as :func:`build_optimizer`'s.

    Returns:
        torch.optim.Optimizer

    Raises:
        ValueError: ``clip_type`` is not among its choices.

    Example::

        >>> params = pose_optimizer_params(model, base_lr=0.01)
        >>> build_clipped_optimizer(params=params, optimizer_class=torch.optim.SGD, clip_type="full_model", lr=0.01)
    """
    if clip_type is not None and clip_type not in _CLIP_TYPES:
        raise ValueError(f"clip_type: expected 'value', 'norm', 'full_model' or None, got {clip_type!r}")
    optimizer = optimizer_class(params, **options)
    if clip_type is not None:
        _clip_gradients(optimizer, clip_type, clip_value, norm_type)
    if not options.keys() & {"fused", "foreach"}:
        _fuse(optimizer)
    return optimizer


def pose_optimizer_params(
    model: nn.Module, *, base_lr: float, lr_factors: Sequence[tuple[str, float]] = (), **options: Any
) -> list[dict[str, Any]]:
    """Group the parameters of a model by their learning rate and weight decay, for a lazy config.

    Args:
        model (nn.Module): the model.
        base_lr (float): the learning rate.
        lr_factors (Sequence[tuple[str, float]]): regular expressions searched in parameter names, and factors of the
            learning rate; the first match counts.
        **options: of detectron2's ``get_default_optimizer_params``, such as ``weight_decay_norm``.

    Returns:
        list[dict]: groups for an optimizer.

    Raises:
        ConfigError: a pattern matches no parameter name.
    """
    groups = get_default_optimizer_params(model, base_lr=base_lr, **options)
    return _scale_learning_rates(groups, model, lr_factors, "lr_factors") if lr_factors else groups


def _check_config(cfg):
    """Report invalid values before training."""
    solver, key = cfg.SOLVER, "SOLVER.{}".format
    check_choice(cfg, key("OPTIMIZER"), ("SGD", *_ADAPTIVE))
    check_from_0_to_1(cfg, key("MOMENTUM"))
    check_not_negative(cfg, *map(key, ("BASE_LR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "BIAS_LR_FACTOR")))
    if solver.CLIP_GRADIENTS.ENABLED:
        check_choice(cfg, key("CLIP_GRADIENTS.CLIP_TYPE"), _CLIP_TYPES)
        check_positive(cfg, key("CLIP_GRADIENTS.CLIP_VALUE"))
    for entry in solver.LR_FACTORS:
        if not _is_factor(entry):
            raise ConfigError(
                f"{key('LR_FACTORS')} must be pairs of a regular expression and a factor of at least 0, got {entry!r}"
            )


def _is_factor(entry):
    try:
        pattern, factor = entry
        re.compile(pattern)
        return 0 <= factor < math.inf
    except (TypeError, ValueError, re.error):
        return False


def _set_lr_factors(optimizer, model, factors):
    """Regroup the parameters so that those whose name matches a pattern have a separate learning rate."""
    groups = _scale_learning_rates(optimizer.param_groups, model, factors, "SOLVER.LR_FACTORS")
    optimizer.param_groups = []
    for group in groups:
        optimizer.add_param_group(group)


def _scale_learning_rates(groups, model, factors, name):
    """Scale the learning rates of parameters whose names match a pattern, and regroup the parameters.

    ``name`` is the name of ``factors`` in error messages.
    """
    of_parameter, hits = {}, Counter()
    for parameter_name, parameter in model.named_parameters():
        for pattern, factor in factors:
            if re.search(pattern, parameter_name):
                of_parameter[parameter] = factor
                hits[pattern] += 1
                break
    for pattern, _ in factors:
        if not hits[pattern]:
            raise ConfigError(
                f"{name}: no parameter of {type(model).__name__} has {pattern!r} in its name (or an earlier "
                "entry matches it); remove the entry, or correct it"
            )
    groups = [
        {**group, "params": [parameter], "lr": group["lr"] * of_parameter.get(parameter, 1.0)}
        for group in groups
        for parameter in group["params"]
    ]
    return reduce_param_groups(groups)


def _clip_gradients(optimizer, clip_type, bound, norm_type):
    """Before each step, clip values, the norm of each gradient, or the norm of all gradients to a bound.

    This is done in ``step`` itself, because a GradScaler has unscaled the gradients by then.
    """

    def clip(optimizer, *_):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if clip_type == "value":
            clip_grad_value_(parameters, bound)
        elif clip_type == "full_model":
            clip_grad_norm_(parameters, bound, norm_type)
        else:
            _clip_each_norm(
                [parameter.grad for parameter in parameters if parameter.grad is not None], bound, norm_type
            )

    optimizer.register_step_pre_hook(clip)


def _clip_each_norm(gradients, max_norm, norm_type):
    if gradients:
        norms = torch.stack(torch._foreach_norm(gradients, norm_type))
        factors = (max_norm / (norms + _NORM_FLOOR)).clamp(max=1.0)
        torch._foreach_mul_(gradients, list(factors.unbind()))


def _fuse(optimizer):
    """Use the fused step, where class and devices have one.

    It is selected after construction: a GradScaler would leave it to a step constructed as fused to unscale the
    gradients, after they have been clipped.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    is_supported = all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in parameters)
    if not isinstance(optimizer, _FUSED_CLASSES) or not is_supported:
        return
    implementation = {"fused": True, "foreach": None}
    for options in (optimizer.defaults, *optimizer.param_groups):
        options.update(implementation)

    def keep_implementation(optimizer, state_dict):
        groups = [{**group, **implementation} for group in state_dict["param_groups"]]
        return {**state_dict, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep_implementation)
    optimizer.register_load_state_dict_post_hook(_match_state_layouts)
    optimizer.register_step_pre_hook(_match_gradient_layouts)


def _match_state_layouts(optimizer):
    """Give loaded state the memory layout of its parameter: fused steps on a CPU pair elements by their address."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = _in_layout_of(value, parameter)


def _match_gradient_layouts(optimizer, *_):
    """The same for gradients; autograd's have the layout, those that other code sets may not."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad = _in_layout_of(parameter.grad, parameter)


def _in_layout_of(value, like):
    return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)
