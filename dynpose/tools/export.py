"""Export a model to one file that runs without dynpose: any number of people, image sizes and images in a batch.

    dynpose export --weights output/run/model_final.pth --output pose.onnx
    dynpose export --weights output/run/model_final.pth --format openvino --precision bfloat16 --output pose.xml
    dynpose export --weights output/run/model_final.pth --precision int8 --calibration images/ --output pose.onnx

The config is, without --config-file, config.yaml in the folder of the weights, or that of published weights.

Formats: onnx, for onnxruntime and others; openvino, an .xml and a .bin file; torch-export, a .pt2 file for PyTorch;
torchscript, a .ts file for PyTorch and libtorch. The network contains the normalisation, the decoding and NMS. Its
inputs are ``images`` (B, 3, H, W), float32 pixel values from 0 to 255, padded so that H and W are multiples of the size
divisibility, and ``image_sizes`` (B, 2), int64 height and width before padding. Its outputs are padded with zeros to
--max-people rows: boxes, scores, classes, keypoints, and counts, the number of people of each image. The file describes
its keypoints, classes and inputs in the metadata property "dynpose" (JSON).

Before the file gets its name it is compared with PyTorch on images of several sizes, one three times as large as the
config's, and several numbers of people; a file that disagrees is not written. --precision int8 quantises the
convolutions and reports what that costs at the config's size and at three times that size: with --annotations AP, else
the shift of the keypoints.

Exit code: 2 = refused, or the file disagrees with PyTorch; 130 and 143 = ended by SIGINT (Ctrl-C) or SIGTERM. Then an
earlier file of that name is unchanged.

The packages are in extras: pip install 'dynpose[export]', and for OpenVINO 'dynpose[export,openvino]'.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .cli import positive_int
from .config_of_weights import required_config
from .ending import clean_on_sigterm

NAME = "export"
HELP = "write a model to a file that runs without dynpose: ONNX, OpenVINO, torch.export, TorchScript"

_FORMATS = ("onnx", "torch-export", "openvino", "torchscript")
_PRECISIONS = ("float32", "float16", "bfloat16", "int8")
# More images change the ranges of activations little
_MOST_CALIBRATION = 128
_MOST_REPORTED = 32
_MOST_CHECKED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", help="a config by path or name; default: that of the weights")
    parser.add_argument("--weights", required=True, help="a file, or a name of `dynpose model-info --weights-list`")
    parser.add_argument("--output", required=True, help="the file to write: .onnx, .xml, .pt2 or .ts")
    parser.add_argument("--format", choices=_FORMATS, default="onnx", help="default %(default)s")
    parser.add_argument("--precision", choices=_PRECISIONS, default="float32", help="default %(default)s")
    parser.add_argument("--calibration", metavar="FOLDER", help="images for --precision int8, like those to predict")
    parser.add_argument("--annotations", help="with --calibration: annotation of its images, to report AP")
    parser.add_argument("--max-people", type=positive_int, help="rows of the outputs, default: the config's limit")
    parser.add_argument("--flip", action="store_true", help="average each image with its mirror image, in the network")
    parser.add_argument(
        "--batch",
        type=_batch,
        default=None,
        metavar="N",
        help="images in a batch, or dynamic (any number, the default)",
    )
    parser.add_argument("--opset", type=positive_int, default=18, help="of ONNX, 18 to 21; default %(default)s")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the file with PyTorch before it gets its name, default yes",
    )
    parser.add_argument(
        "--images", nargs="+", default=(), help="images for the check; default: --calibration's, else synthetic people"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def run(args: argparse.Namespace) -> int | None:
    """Export, check and report; 143 = terminated."""
    return clean_on_sigterm(lambda: _export(args))


def _export(args):
    from dynpose.config import ConfigError
    from dynpose.data.any_image import to_bgr
    from dynpose.export import ExportNetwork, check_samples, export_network, file_metadata
    from dynpose.export.accuracy import InputSize
    from dynpose.export.comparing import summary
    from dynpose.export.exporting import check_arguments
    from dynpose.runtime.sessions import is_exported

    check_arguments(args.format, args.precision, args.output, args.opset)
    if is_exported(args.weights):
        raise ConfigError(
            f"--weights {args.weights}: it is an exported file already; give the checkpoint that it is of"
        )
    _check_calibration(args)
    calibration = _spread(_images([args.calibration])) if args.calibration else []
    checked = _images(args.images) if args.images else calibration[:_MOST_CHECKED]
    predictor, config_file = _predictor(args)
    cfg, model = predictor.cfg, predictor.model
    max_people = args.max_people or _people_limit(cfg, model)
    _check_max_people(cfg, model, max_people)
    network = ExportNetwork(model, max_people, args.flip).eval()
    inputs = InputSize(
        cfg.INPUT.MIN_SIZE_TEST,
        cfg.INPUT.MAX_SIZE_TEST,
        max(1, model.backbone.size_divisibility),
        cfg.INPUT.FORMAT,
    )
    metadata = file_metadata(
        cfg,
        model,
        predictor.schema,
        max_people=max_people,
        precision=args.precision,
        class_names=list(predictor.metadata.get("thing_classes", [])),
        config_name=_config_name(config_file),
        flip=args.flip,
    )
    samples = check_samples(
        [to_bgr(path) for path in checked],
        min_size=inputs.min_size,
        divisibility=inputs.divisibility,
        channels=inputs.channels,
    )
    exported = export_network(
        network,
        args.output,
        metadata,
        divisibility=inputs.divisibility,
        samples=samples,
        format=args.format,
        precision=args.precision,
        calibration=(inputs.sample(to_bgr(path)) for path in calibration) if calibration else None,
        batch=args.batch,
        opset=args.opset,
        check=args.check,
        report=_report(args, calibration, inputs) if args.precision == "int8" else None,
    )
    for path in exported.files:
        print(f"{path}: written, {path.stat().st_size / 1e6:.1f} MB")
    if len(exported.files) > 1 and args.format == "onnx":
        print("  The weights have more than 2 GB and are in the second file: keep both in one folder.")
    print(f"  {args.format}, {args.precision}, at most {max_people} people in an image")
    print(f"  checked: {summary(exported.compared) if exported.compared else 'no'}")
    if exported.compared and not any(result.expected for result in exported.compared):
        print("  The model sees no people in the images of the check: give pictures of its objects with --images.")


def _batch(text):
    return None if text == "dynamic" else positive_int(text)


def _check_calibration(args):
    from dynpose.config import ConfigError

    if args.precision == "int8" and not args.calibration:
        raise ConfigError("--precision int8 needs --calibration, a folder of images like those that will be predicted")
    if args.calibration and args.precision != "int8":
        raise ConfigError(f"--calibration is for --precision int8; {args.precision} needs none")
    if args.annotations and not args.calibration:
        raise ConfigError("--annotations goes with --calibration, the folder of its images")


def _images(inputs: Sequence[str]) -> list[Path]:
    from dynpose.data.image_files import find_images

    return [path for _, path in find_images(inputs).images]


def _spread(paths):
    """At most so many images as calibrate, from the whole list."""
    return paths[:: -(-len(paths) // _MOST_CALIBRATION)]


def _predictor(args) -> tuple[Any, str]:
    """The model on the CPU in float32, and its config file."""
    from dynpose.config import ConfigError, load_config
    from dynpose.engine import PosePredictor

    config_file = required_config(args.config_file, args.weights)
    if load_config(config_file, args.opts).TEST.AUG.ENABLED:
        raise ConfigError(
            "TEST.AUG.ENABLED is True, but an exported network has no test-time augmentation except --flip: end the "
            "command with TEST.AUG.ENABLED False, after --flip if the mirror image shall stay"
        )
    return PosePredictor.from_files(
        config_file, args.weights, args.opts, device="cpu", precision="float32"
    ), config_file


def _limit_key(model):
    from dynpose.methods import find_method

    method = find_method(type(model))
    return method.detection_limit_key if method is not None else ""


def _people_limit(cfg, model):
    """The number of people that the config keeps in an image."""
    from dynpose.config import ConfigError, read_key

    key = _limit_key(model)
    if not key:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {type(model).__name__!r} has no key that limits the people in an image: give "
            "--max-people"
        )
    return read_key(cfg, key)


def _check_max_people(cfg, model, max_people):
    from dynpose.config import ConfigError, read_key

    key = _limit_key(model)
    if key and max_people > read_key(cfg, key):
        raise ConfigError(f"--max-people {max_people}: {key} keeps at most {read_key(cfg, key)} people; raise it too")


def _config_name(config_file):
    """The name under which dynpose knows a config; "" for the file of a run, whose path is of this machine."""
    from dynpose.config import config_names

    posix = Path(config_file).as_posix()
    return next((name for name in config_names() if posix.endswith(str(name))), "")


def _report(args, calibration, inputs) -> Callable[[Any, Any], None]:
    from dynpose.export.accuracy import ap_report, shift_report

    def report(network: Any, run: Any) -> None:
        print("int8, compared with float32:")
        if args.annotations:
            name = _register(args)
            lines = ap_report(network, run, name, inputs)
        else:
            lines = shift_report(network, run, calibration[:_MOST_REPORTED], inputs)
        for line in lines:
            print(f"  {line}")

    return report


def _register(args):
    from dynpose.data import register_pose_dataset

    name = f"calibration {os.path.abspath(args.annotations)}"
    register_pose_dataset(name, args.annotations, args.calibration)
    return name
