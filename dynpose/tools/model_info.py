"""Count a model's parameters and the FLOPs of its inference; no weights and no images are needed.

    dynpose model-info --config-file configs/FCPose/R_50_3x.yaml --input-size 800 1066 --people 10

A multiply-add counts as one FLOP, as in fvcore, which counts convolutions, matrix products, normalisation and bilinear
interpolation, but no other element-wise operations, no sorting and no NMS. The image is padded as by the model, and the
padding is counted. Detections are injected into the network's predictions, as in `dynpose benchmark model`, which
reports the same counts. The cost of a generated network (its controller, its layers and the up-sampling of its maps:
FCPose section 3.1, InsPose Table 3) is computed from its shape and multiplied by the number of networks that run: one
per person, but in InsPose without a box head one per candidate, of which several may be the same person. For other
methods, the cost per person is the difference that added people make. Branches that are used only in training count as
parameters, but not as FLOPs.

For AdelaiDet's FCPose (R-50, 800 x 1066) fvcore reports 180.512 GFLOPs, for configs/FCPose/R_50_3x_release.yaml
180.498: it counts the released network's up-sampling as interpolation, but dynpose's as element-wise operations.
Neither includes the 4.04 GFLOPs that the released network spends in inference on unused auxiliary heatmaps.

    dynpose model-info --weights-list

lists the published weights that dynpose knows by name, for MODEL.WEIGHTS and --weights (docs/weights.md).
"""

import argparse
from pathlib import Path

from .cli import positive_int

NAME = "model-info"
HELP = "count parameters and FLOPs; list published weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--weights-list", action=_WeightsList, nargs=0, help="list the published weights that dynpose knows by name"
    )
    parser.add_argument("--people", type=positive_int, default=10, help="people in the image, default %(default)s")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")


def run(args: argparse.Namespace) -> None:
    """Count and print."""
    from tabulate import tabulate

    from dynpose.profiling.flops import count_flops_with_people, count_parameters, padded_size

    model = _build(args)
    parameters = count_parameters(model)
    counted = count_flops_with_people(model, args.input_size, [args.people])[args.people]
    flops = counted.static
    rows: list[tuple[str, ...]] = [
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
    elif args.people:
        print("The count does not depend on the number of people.")


class _WeightsList(argparse.Action):
    """Prints the published weights, without the other arguments."""

    def __call__(self, parser, namespace, values, option_string=None):
        from dynpose.checkpoint.published import origin
        from dynpose.methods import registered_weights

        # a table of all columns is 330 characters wide
        for weights in registered_weights():
            print(weights.name)
            print(f"    weights  {weights.title}{f'; AP as published: {weights.ap}' if weights.ap else ''}")
            for config in weights.configs:
                print(f"    config   {Path(config).as_posix()}")
            print(f"    file     {weights.file}")
            print(f"    licence  {weights.licence}")
            print(f"    where    {origin(weights)}")
        parser.exit()


def _build(args):
    """The model, on the CPU, with a detection limit of at least ``args.people``."""
    from detectron2.modeling import META_ARCH_REGISTRY

    from dynpose.config import load_config, read_key
    from dynpose.data import register_datasets_for_schema
    from dynpose.methods import find_method
    from dynpose.modeling.build import build_model, check_meta_architecture

    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE = "cpu"
    check_meta_architecture(cfg)
    method = find_method(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE))
    if method is None:
        cfg.MODEL.FCOS.SCORE_THRESH_TEST = 1.0  # an FCOS-based detector detects nothing
    elif key := method.detection_limit_key:
        cfg.merge_from_list([key, max(read_key(cfg, key), args.people)])
    register_datasets_for_schema(cfg)
    return build_model(cfg).eval()
