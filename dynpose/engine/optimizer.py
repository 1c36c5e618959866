"""The optimizers of a config, YAML or lazy: SGD, Adam and AdamW, with clipped gradients."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping, reduce_param_groups
from torch import nn
from torch.nn.utils import clip_grad_norm_

from dynpose.config import ConfigError, check_choice, check_from_0_to_1, check_not_negative, check_positive

_ADAPTIVE = {"ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build ``SOLVER.OPTIMIZER``: "SGD" (detectron2's), "ADAM" or "ADAMW".

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
    name, solver = cfg.SOLVER.OPTIMIZER, cfg.SOLVER
    whole = solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE == "full_model"
    if whole:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    if name == "SGD":
        optimizer = build_sgd(cfg, model)
    else:
        params = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        optimizer = maybe_add_gradient_clipping(cfg, _ADAPTIVE[name])(params, lr=solver.BASE_LR)
    if solver.LR_FACTORS:
        _set_lr_factors(optimizer, model, solver.LR_FACTORS)
    if whole:
        _clip_full_model(optimizer, solver.CLIP_GRADIENTS.CLIP_VALUE, solver.CLIP_GRADIENTS.NORM_TYPE)
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
        **options: arguments of ``optimizer_class``, such as ``lr``.

    Returns:
        torch.optim.Optimizer

    Raises:
        ValueError: ``clip_type`` is not among its choices.

    Example::

        >>> params = pose_optimizer_params(model, base_lr=0.01)
        >>> build_clipped_optimizer(params=params, optimizer_class=torch.optim.SGD, clip_type="full_model", lr=0.01)
    """
    if clip_type not in (None, "value", "norm", "full_model"):
        raise ValueError(f"clip_type: expected 'value', 'norm', 'full_model' or None, got {clip_type!r}")
    if clip_type in ("value", "norm"):
        clip = {"ENABLED": True, "CLIP_TYPE": clip_type, "CLIP_VALUE": clip_value, "NORM_TYPE": norm_type}
        optimizer_class = maybe_add_gradient_clipping(CfgNode({"SOLVER": {"CLIP_GRADIENTS": clip}}), optimizer_class)
    optimizer = optimizer_class(params, **options)
    if clip_type == "full_model":
        _clip_full_model(optimizer, clip_value, norm_type)
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
        check_choice(cfg, key("CLIP_GRADIENTS.CLIP_TYPE"), ("value", "norm", "full_model"))
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


def _clip_full_model(optimizer, max_norm, norm_type):
    """Before each step, clip the total norm of all gradients to ``max_norm``.

    This is done in ``step`` itself, because a GradScaler has unscaled the gradients by then.
    """

    def clip_all(optimizer, *_):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip_all)
