"""The optimizers of a config: detectron2's SGD, and Adam and AdamW with the same keys."""

import math
import re
from collections import Counter

import torch
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping, reduce_param_groups
from torch.nn.utils import clip_grad_norm_

from dynpose.config import ConfigError, check_choice, check_not_negative, check_positive

_ADAPTIVE = {"ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}


def build_optimizer(cfg, model):
    """Build ``SOLVER.OPTIMIZER``: "SGD" (detectron2's), "ADAM" or "ADAMW".

    Args:
        cfg (CfgNode): beside detectron2's keys, ``SOLVER.LR_FACTORS`` and the clip type "full_model" are read.
        model (nn.Module)

    Returns:
        torch.optim.Optimizer

    Raises:
        ConfigError: a value is none of its choices or out of its range, or no parameter has an entry of LR_FACTORS in
            its name.

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
        _clip_full_model(optimizer, solver.CLIP_GRADIENTS)
    return optimizer


def _check_config(cfg):
    """Find a wrong value before training does."""
    solver, key = cfg.SOLVER, "SOLVER.{}".format
    check_choice(cfg, key("OPTIMIZER"), ("SGD", *_ADAPTIVE))
    check_not_negative(cfg, *map(key, ("BASE_LR", "MOMENTUM", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "BIAS_LR_FACTOR")))
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
    """Regroup the parameters, so that those whose name contains a pattern have their own learning rate."""
    of_parameter, hits = {}, Counter()
    for name, parameter in model.named_parameters():
        for pattern, factor in factors:
            if re.search(pattern, name):
                of_parameter[parameter] = factor
                hits[pattern] += 1
                break
    for pattern, _ in factors:
        if not hits[pattern]:
            raise ConfigError(
                f"SOLVER.LR_FACTORS: no parameter of {type(model).__name__} has {pattern!r} in its name (or an earlier "
                "entry has taken it); remove the entry, or correct it"
            )
    groups = [
        {**group, "params": [parameter], "lr": group["lr"] * of_parameter.get(parameter, 1.0)}
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    optimizer.param_groups = []
    for group in reduce_param_groups(groups):
        optimizer.add_param_group(group)


def _clip_full_model(optimizer, clip):
    """Before each step, bring the norm of all gradients together to at most CLIP_VALUE.

    In ``step`` itself, and not before it, because there a GradScaler has already unscaled the gradients.
    """

    def clip_all(optimizer, *_):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    optimizer.register_step_pre_hook(clip_all)
