"""Convert weights that the authors of a method released into a dynpose checkpoint.

    dynpose convert-weights --input R_50_3X.pth --output fcpose_r50.pth \\
        --config-file configs/FCPose/R_50_3x_release.yaml

Released weights need no conversion: they are recognised when they are loaded, to predict, to evaluate and to fine-tune
on other keypoints (docs/training.md). Convert them to have dynpose's names in the file. With --config-file the weights
are loaded into that model, which finds what is missing and what has another shape. Nothing is written unless all is
well.

The converted file names the released keypoints, COCO's 17 or CrowdPose's 14 unless a config says otherwise.
"""

import fnmatch
import os
from pathlib import Path

NAME = "convert-weights"
HELP = "convert released weights into a dynpose checkpoint"

# Of each method, the converted parameters that together have so many rows for each keypoint
_ROWS_PER_KEYPOINT = {
    "FCPose": ("aux_heatmaps.coarse.bias", 1),
    "InsPoseReleased": ("aux_branch.heatmaps.bias", 1),
    "CID": ("gfd.heatmaps.bias", 1),
    # one layer for each part of the body: x and y of its keypoints
    "QueryPose": ("keypoint_stages.0.coord_heads.*.bias", 2),
}


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    parser.add_argument("--input", required=True, help="the released file")
    parser.add_argument("--output", required=True, help="the file to write, .pth")
    parser.add_argument("--config-file", help="check that the weights fit this config, whose keypoints they then have")


def run(args):
    """Convert, report and write."""
    from dynpose.checkpoint import CheckpointError, convert_released

    _check_output(args.input, args.output)
    state_dict = _read(args.input)
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
    _write_atomically(Path(args.output), {"model": converted, "dynpose": note})
    _report(args, state_dict, released, converted, keypoints)


def _check_output(path, output):
    from dynpose.checkpoint import CheckpointError

    if not output.endswith(".pth"):
        raise CheckpointError(f"--output {output}: the name must end in .pth, which tells detectron2 the format")
    if os.path.abspath(path) == os.path.abspath(output):
        raise CheckpointError(f"--output {output}: would overwrite the input; give another name")


def _read(path):
    """The parameters in a file, by name."""
    import torch

    from dynpose.checkpoint import CheckpointError

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:
        # a truncated archive, a text file or a pickle of more than tensors each raise their own kind
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path}: can't be read as weights ({reason}); copy it again") from error
    if isinstance(checkpoint, dict) and "dynpose" in checkpoint:
        raise CheckpointError(f"{path}: is a dynpose checkpoint already; there is nothing to convert")
    for key in ("model", "state_dict"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise CheckpointError(f"{path}: holds no named parameters; give weights that the authors of a method released")
    return checkpoint


def _detect(state_dict, path):
    from dynpose.checkpoint import CheckpointError, detect_released
    from dynpose.checkpoint.released import RELEASED_FORMATS

    released = detect_released(state_dict)
    if released is None:
        known = ", ".join(released.name for released in RELEASED_FORMATS)
        raise CheckpointError(f"{path}: its parameters have the names of no known release; known are {known}")
    return released


def _fit(path, config_file):
    """Load the released file into the config's model, which must fit completely, and give its keypoint names."""
    from dynpose.engine.predictor import PosePredictor

    return PosePredictor.from_files(config_file, path, device="cpu").schema.names


def _released_keypoints(converted, released, path):
    """The keypoint names of weights without a config: what was released is COCO's or CrowdPose's."""
    from dynpose.checkpoint import CheckpointError
    from dynpose.data import COCO_PERSON, CROWDPOSE_PERSON

    pattern, rows = _ROWS_PER_KEYPOINT[released.method]
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


def _write_atomically(path, checkpoint):
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    torch.save(checkpoint, unfinished)
    os.replace(unfinished, path)


def _report(args, state_dict, released, converted, keypoints):
    from dynpose.checkpoint import convert_released

    unused = [key for key, value in state_dict.items() if not any(convert_released({key: value}, released))]
    # hundreds, of batch normalisation
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
