"""Count a model's parameters and the FLOPs of its inference; no weights and no images are needed.

    dynpose model-info --config-file configs/FCPose/R_50_3x.yaml --input-size 800 1066 --people 10

A multiply-add counts as one FLOP, as in fvcore, which counts convolutions, matrix products, normalisation and bilinear
interpolation, but nothing else that is element-wise, no sorting and no NMS. The image is padded as the model pads it,
and the padding is counted. People are planted in the network's predictions, as in `dynpose benchmark model`, which
counts the same. What a generated network adds (its controller, its layers and the up-sampling of its maps: FCPose
section 3.1, InsPose Table 3) is worked out from its shape, and those that run are counted: one for each person, but in
InsPose without a box head one for each candidate, several of which are the same person. What another method does for
every person is the difference that they make. Branches that only training uses have parameters and no FLOPs.

For AdelaiDet's FCPose (R-50, 800 x 1066) fvcore gives 180.512 GFLOPs, for configs/FCPose/R_50_3x_release.yaml 180.498:
it knows the released network's up-sampling as interpolation and dynpose's as element-wise operations. Neither includes
the 4.04 GFLOPs that the released network spends in inference on auxiliary heatmaps it does not use.
"""

import math
from typing import NamedTuple

from .cli import positive_int

NAME = "model-info"
HELP = "count parameters and FLOPs"

# What fvcore counts for a value that is interpolated bilinearly
_FLOPS_BILINEAR = 4


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", required=True, help="a file of configs/, or the config.yaml of a run")
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=positive_int,
        default=(800, 1066),
        metavar=("HEIGHT", "WIDTH"),
        help="of the resized image, pixels; default 800 1066",
    )
    parser.add_argument("--people", type=positive_int, default=10, help="people in the image, default %(default)s")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")


def run(args):
    """Count and print."""
    from tabulate import tabulate

    model = _build(args)
    parameters = count_parameters(model)
    counted = count_flops_with_people(model, args.input_size, [args.people])[args.people]
    flops = counted.static
    rows = [
        (name, f"{total:,}", f"{trainable:,}", f"{flops.get(name, 0) / 1e9:.3f}")
        for name, (total, trainable) in parameters.items()
        if total or name in flops
    ]
    if "" in flops:
        rows.append(("(other)", "", "", f"{flops[''] / 1e9:.3f}"))
    totals = [f"{sum(values):,}" for values in zip(*parameters.values())]
    rows.append(("total", *totals, f"{sum(flops.values()) / 1e9:.3f}"))

    columns = ("module", "parameters", "trainable", "GFLOPs")
    print(tabulate(rows, columns, colalign=("left", "right", "right", "right"), disable_numparse=True))
    size, padded = (" x ".join(map(str, pair)) for pair in (args.input_size, padded_size(model, args.input_size)))
    print(f"\nGFLOPs: of one image of {size} pixels, padded to {padded}; a multiply-add counts as one.")
    if counted.added:
        parts = ", ".join(f"{name} {value / 1e9:.6f}" for name, value in counted.added.items())
        print(f"Each {counted.unit} adds {sum(counted.added.values()) / 1e9:.6f} ({parts}).")
        networks = f", {counted.number} {counted.unit}s" if counted.unit != "person" else ""
        print(f"With {args.people} people{networks}: {counted.total / 1e9:.3f} GFLOPs.")


def count_parameters(model):
    """Count the parameters of each top module.

    Args:
        model (nn.Module): the model.

    Returns:
        dict[str, tuple[int, int]]: all and trainable ones. Frozen normalisation has none, its numbers are buffers.
    """
    return {
        name: (
            sum(parameter.numel() for parameter in module.parameters()),
            sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        )
        for name, module in model.named_children()
    }


def count_flops(model, size):
    """Count the FLOPs of one forward pass on a blank image.

    Args:
        model (nn.Module): in eval mode; if it is not to find people there, its score threshold must be out of reach.
        size (tuple[int, int]): height and width of the image before padding, pixels.

    Returns:
        dict[str, float]: FLOPs of each top module with any; "" = outside of all.
    """
    import torch
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(_tensors_only(model), torch.zeros(3, *size, device=model.device))
    analysis.set_op_handle("torchvision::deform_conv2d", _deformable_flops)
    # Element-wise operations are left out on purpose, training branches are not called, and sizes that the trace takes
    # for constants are those that are asked for: nothing to be warned of.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        by_module = analysis.by_module()
    flops = {name: by_module[f"model.{name}"] for name, _ in model.named_children()}
    flops[""] = by_module[""] - sum(flops.values())
    return {name: value for name, value in flops.items() if value}


class FlopsWithPeople(NamedTuple):
    """FLOPs of an image with N people.

    Attributes:
        total (float): of everything.
        static (dict[str, float]): what does not depend on the people, by top module; "" = outside of all.
        added (dict[str, float]): what each unit adds, by part; {} where nothing depends on the people.
        unit (str): "generated network" or "person".
        number (int): how many units there are.
    """

    total: float
    static: dict
    added: dict
    unit: str
    number: int


def count_flops_with_people(model, size, numbers):
    """Count the FLOPs of an image with so many people in it.

    Args:
        model (nn.Module): in eval mode. If its meta-architecture has no stand-in (see
            :mod:`dynpose.tools.benchmark.fixed_people`), one generated network is counted for each person, if it has
            any, and otherwise nothing for people.
        size (tuple[int, int]): height and width of the image before padding, pixels.
        numbers (Sequence[int]): of people.

    Returns:
        dict[int, FlopsWithPeople]: by number.

    Raises:
        ConfigError: so many people do not fit in.
    """
    from .benchmark.fixed_people import has_stand_in

    can_plant = has_stand_in(type(model))
    per_network = count_flops_per_network(model, size)
    if can_plant and not per_network:
        # Not from 0 on: on a trace, what is computed for nobody does not count.
        traced = {number: _trace(model, size, number) for number in {1, *numbers}}
        return {number: _difference(traced[1], traced[number], number) for number in numbers}
    static = _trace(model, size, 0) if can_plant else count_flops(model, size)
    counted = {}
    for number in numbers:
        networks = count_networks(model, size, number) if can_plant else number
        total = sum(static.values()) + networks * sum(per_network.values())
        counted[number] = FlopsWithPeople(total, static, per_network, "generated network", networks)
    return counted


def _trace(model, size, num_people):
    from .benchmark.fixed_people import fixed_people

    with fixed_people(model, num_people, size):
        return count_flops(model, size)


def _difference(of_one, of_all, num_people):
    total = sum(of_all.values())
    if num_people < 2:
        return FlopsWithPeople(total, of_all, {}, "person", num_people)
    added = {name: (flops - of_one.get(name, 0)) / (num_people - 1) for name, flops in of_all.items()}
    static = {name: of_one.get(name, 0) - flops for name, flops in added.items()}
    by_part = {name or "other": flops for name, flops in added.items() if flops > 0}
    return FlopsWithPeople(total, static, by_part, "person", num_people)


def count_networks(model, size, num_people):
    """Count the networks that are generated for some people, who are planted: at times more than people.

    Args:
        model (nn.Module): in eval mode, with a ``controller`` that generates them.
        size (tuple[int, int]): height and width of the image, pixels.
        num_people (int): N.

    Returns:
        int
    """
    import torch

    from .benchmark.fixed_people import fixed_people

    generated = []
    handle = model.controller.register_forward_hook(lambda _, inputs, output: generated.append(len(output)))
    try:
        with fixed_people(model, num_people, size), torch.no_grad():
            model([{"image": torch.zeros(3, *size, device=model.device)}])
    finally:
        handle.remove()
    return sum(generated)


def count_flops_per_network(model, size):
    """Count what every generated network adds (FCPose section 3.1).

    Args:
        model (nn.Module): the model.
        size (tuple[int, int]): height and width of the image before padding, pixels.

    Returns:
        dict[str, int]: FLOPs of each part; {} for a model without generated networks.
    """
    from torch import nn

    if not hasattr(model, "spec"):
        return {}
    height, width = padded_size(model, size)
    stride = model.kp_net_head.stride
    cells = (height // stride) * (width // stride)
    flops = {
        "controller": model.controller.linear.weight.numel(),
        "KP-Net": cells * sum(n_in * n_out for n_in, n_out in model.spec.layer_sizes),
    }
    # each value of the map is multiplied with every weight of its channel's filter
    refinement = getattr(model, "refinement", nn.Identity())
    deconvs = [module for module in refinement.modules() if isinstance(module, nn.ConvTranspose2d)]
    if deconvs:
        flops["deconvolution"] = cells * sum(module.weight.numel() for module in deconvs)
    factor = stride // getattr(model, "map_stride", stride)
    if factor > 1:
        flops["up-sampling"] = _FLOPS_BILINEAR * model.spec.num_keypoints * cells * factor**2
    return flops


def padded_size(model, size):
    """Give the height and width that the model pads an image of ``size`` (height, width) to, pixels."""
    import torch

    return tuple(model.preprocess_image([{"image": torch.zeros(3, *size, device=model.device)}]).tensor.shape[-2:])


def _build(args):
    """The model, on the CPU, with room for as many people as are asked for."""
    from detectron2.modeling import META_ARCH_REGISTRY, build_model

    from dynpose import modeling  # noqa: F401  registers the meta-architectures
    from dynpose.config import load_config

    from .benchmark.fixed_people import has_stand_in

    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE = "cpu"
    if not has_stand_in(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)):
        cfg.MODEL.FCOS.SCORE_THRESH_TEST = 1.0  # one on FCOS finds nobody
    cfg.MODEL.CID.MAX_PROPOSALS = max(cfg.MODEL.CID.MAX_PROPOSALS, args.people)
    return build_model(cfg).eval()


def _deformable_flops(inputs, outputs):
    """Like a convolution; fvcore does not know it. The samples' interpolation is not counted."""
    from fvcore.nn.jit_handles import get_shape

    _, *of_output = get_shape(inputs[1])
    return math.prod(get_shape(outputs[0])) * math.prod(of_output)


def _tensors_only(model):
    """Wrap a detectron2 model so that it takes and gives tensors, which is all that can be traced."""
    from torch import nn

    class TensorsOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            people = self.model([{"image": image}])[0]["instances"]
            # Boxes hold theirs as an attribute
            return tuple(getattr(values, "tensor", values) for values in people.get_fields().values())

    return TensorsOnly()
