"""Convert weights released by the authors of a method to a dynpose checkpoint.

    dynpose convert-weights --input R_50_3X.pth --output fcpose_r50.pth \\
        --config-file configs/FCPose/R_50_3x_release.yaml

Released weights need no conversion: they are recognised on loading, for prediction, evaluation and fine-tuning on other
keypoints (docs/training.md). Convert them to get a file with dynpose's parameter names. With --config-file the weights
are loaded into that model to detect missing parameters and wrong shapes. On any error, nothing is written.

The converted file records the names of the released keypoints: COCO's 17 or CrowdPose's 14, unless a config gives
others.

    dynpose convert-weights --strip --input output/model_0089999.pth --output weights.pth

removes everything but the weights and their description from a checkpoint of a dynpose run: the optimizer state is one
to two times as large as the weights. model_final.pth and model_best.pth of a run are already stripped.
"""

import argparse
import fnmatch
import os
from pathlib import Path

NAME = "convert-weights"
HELP = "convert released weights into a dynpose checkpoint, or strip one to its weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument(
        "--input", required=True, help="the released file or the name of one, or with --strip a dynpose checkpoint"
    )
    parser.add_argument("--output", required=True, help="the file to write, .pth")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config-file", help="check that the weights fit this config, whose keypoints they then have")
    what.add_argument("--strip", action="store_true", help="keep a dynpose checkpoint's weights and note alone")


def run(args: argparse.Namespace) -> None:
    """Convert, report and write."""
    from dynpose.checkpoint import CheckpointError, convert_released, locate_weights

    _check_output(args.input, args.output)
    if args.strip:
        _strip(args.input, args.output)
        return
    state_dict = _read(locate_weights(args.input))
    released = _detect(state_dict, args.input)
    converted, unknown = convert_released(state_dict, released)
    if unknown:
        raise CheckpointError(
            f"{args.input}: {len(unknown)} parameters are not of {released.name}: {', '.join(unknown[:4])}, ..."
        )
    if args.config_file:
        keypoints = _fit(args.input, args.config_file)
    else:
        keypoints = _released_keypoints(converted, released, args.input)

    note = {"method": released.method, "keypoints": list(keypoints)}
    _write(args.output, {"model": converted, "dynpose": note})
    _report(args, state_dict, released, converted, keypoints)


def _check_output(path, output):
    from dynpose.checkpoint import CheckpointError

    if not output.endswith(".pth"):
        raise CheckpointError(
            f"--output {output}: the name must end in .pth, by which detectron2 recognises the format"
        )
    if os.path.abspath(path) == os.path.abspath(output):
        raise CheckpointError(f"--output {output}: would overwrite the input; give another name")


# Entries of a stripped checkpoint: the weights, their description, the iteration, and the metric of the best weights
_KEPT = ("model", "dynpose", "iteration", "best")


def _strip(path, output):
    from dynpose.checkpoint import CheckpointError
    from dynpose.checkpoint.reading import load_checkpoint

    checkpoint = load_checkpoint(path)
    if "dynpose" not in checkpoint or not _are_weights(checkpoint.get("model")):
        raise CheckpointError(
            f"{path}: is not a checkpoint of a dynpose run; without --strip, released weights are converted"
        )
    kept = {name: checkpoint[name] for name in _KEPT if name in checkpoint}
    # a view would be written with its whole storage
    kept["model"] = {name: value.clone() for name, value in kept["model"].items()}
    _write(output, kept)
    removed = [name for name in checkpoint if name not in kept]
    print(f"{path}: {checkpoint['dynpose']['method']}, {os.path.getsize(path) / 1e6:.1f} MB")
    print(f"  removed: {', '.join(removed) or 'nothing'}")
    print(f"{output}: written, {os.path.getsize(output) / 1e6:.1f} MB")


def _are_weights(value):
    import torch

    return isinstance(value, dict) and all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def _read(path):
    """The parameters in a file, by name."""
    from dynpose.checkpoint import CheckpointError
    from dynpose.checkpoint.reading import load_checkpoint

    checkpoint = load_checkpoint(path)
    if "dynpose" in checkpoint:
        raise CheckpointError(
            f"{path}: is a dynpose checkpoint already; there is nothing to convert. With --strip, only its weights are "
            "kept"
        )
    weights = checkpoint["model"]
    if not _are_weights(weights):
        raise CheckpointError(f"{path}: holds no named parameters; give weights that the authors of a method released")
    return weights


def _detect(state_dict, path):
    from dynpose.checkpoint import CheckpointError, detect_released
    from dynpose.checkpoint.released import released_formats

    released = detect_released(state_dict)
    if released is None:
        known = ", ".join(released.name for released in released_formats())
        raise CheckpointError(f"{path}: its parameters have the names of no known release; known are {known}")
    return released


def _fit(path, config_file):
    """Load the released file, which must fit completely, into the config's model; return its keypoint names."""
    from dynpose.engine.predictor import PosePredictor

    return PosePredictor.from_files(config_file, path, device="cpu").schema.names


def _released_keypoints(converted, released, path):
    """The keypoint names of weights without a config: released weights are for COCO or CrowdPose."""
    from dynpose.checkpoint import CheckpointError
    from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON

    pattern, rows = released.rows_per_keypoint
    counted = [len(converted[key]) for key in fnmatch.filter(converted, pattern)]
    if not counted:
        raise CheckpointError(
            f"{path}: {pattern} is missing from these weights of {released.name}; copy the file again"
        )
    num_keypoints = sum(counted) // rows
    for schema in (COCO_PERSON, CROWDPOSE_PERSON):
        if num_keypoints == schema.num_keypoints:
            return schema.names
    raise CheckpointError(
        f"{path}: has {num_keypoints} keypoints, not the {COCO_PERSON.num_keypoints} of COCO or the "
        f"{CROWDPOSE_PERSON.num_keypoints} of CrowdPose; give --config-file with a config that names them in "
        "MODEL.KEYPOINT_SCHEMA"
    )


def _write(path, checkpoint):
    from dynpose.checkpoint.writing import explain_write_errors, write_checkpoint

    with explain_write_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, checkpoint)


def _report(args, state_dict, released, converted, keypoints):
    from dynpose.checkpoint import convert_released

    unused = [key for key, value in state_dict.items() if not any(convert_released({key: value}, released))]
    # batch normalisation has hundreds of them
    named = [key for key in unused if not key.endswith("num_batches_tracked")]
    if len(named) < len(unused):
        named.append(f"{len(unused) - len(named)} counters of steps (num_batches_tracked)")
    missing = f"none of {args.config_file}"
    if not args.config_file:
        missing = f"not checked; give --config-file {released.config}"
    print(f"{args.input}: {released.name}, {len(keypoints)} keypoints")
    print(f"  converted: {len(converted)} parameters, {sum(value.numel() for value in converted.values()):,} values")
    print(f"  unused:    {', '.join(named) or 'none'} (constants, nothing learned)")
    print(f"  missing:   {missing}")
    print(f"{args.output}: written")
