"""Draw what a model computes on the way to its poses, as the figures of its paper: heatmaps, offsets, masks, attention.

    dynpose visualize --weights output/run/model_final.pth --list
    dynpose visualize --weights output/run/model_final.pth --input street.jpg --what heatmaps --output heatmaps.png
    dynpose visualize --weights output/run/model_final.pth --input street.jpg --what all --output figures.png

The config is, without --config-file, config.yaml in the folder of the weights, or that of published weights. Each
figure is one picture with a caption that says what is seen. With one name, --output is its file; with several, or all,
the name of each is added to it: figures-heatmaps.png. The model runs once on one view of the image: test-time
augmentation and soft OKS-NMS are off.

docs/visualization.md shows the figures of each method. The times of a model over the number of people are drawn by
"dynpose benchmark model --plot".
"""

import argparse
from pathlib import Path

from .cli import finite_number, positive_int

NAME = "visualize"
HELP = "draw a model's heatmaps, offsets, masks or attention, as the figures of its paper"

_SUFFIXES = (".png", ".jpg", ".jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("--config-file", help="a config by path or name; default: that of the weights")
    parser.add_argument("--weights", required=True, help="a file, or a name of `dynpose model-info --weights-list`")
    parser.add_argument("--list", action="store_true", help="list the figures of this config's method, and stop")
    parser.add_argument("--input", metavar="IMAGE", help="a file or an http(s) URL")
    parser.add_argument("--what", nargs="+", metavar="NAME", help="figures of --list, or all")
    parser.add_argument("--output", type=_picture, metavar="FILE.png", help="the picture to write, or .jpg")
    parser.add_argument(
        "--person",
        type=positive_int,
        default=1,
        metavar="RANK",
        help="of the figures of one person: 1 = the highest score, the default",
    )
    parser.add_argument(
        "--score-threshold",
        type=finite_number,
        default=0.3,
        help="of the people in the figures of several, default %(default)s",
    )
    parser.add_argument("--device", help="cpu or cuda; default: MODEL.DEVICE, or cpu where there is no GPU")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after another option")


def run(args: argparse.Namespace) -> None:
    """List the figures, or draw and write them."""
    _check(args)
    from dynpose.engine.figures import ALL, PLAIN_INFERENCE, FigureDrawer, figures_of
    from dynpose.engine.predictor import PosePredictor

    from .config_of_weights import required_config

    config_file = required_config(args.config_file, args.weights)
    opts = [*args.opts, *PLAIN_INFERENCE]
    predictor = PosePredictor.from_files(config_file, args.weights, opts, args.device, precision="float32")
    if args.list:
        _print_figures(type(predictor.model).__name__, predictor.model, figures_of(predictor.model))
        return
    drawer = FigureDrawer(predictor)
    pictures = drawer.draw(args.input, args.what, person=args.person, score_threshold=args.score_threshold)
    is_one = len(set(args.what)) == 1 and ALL not in args.what
    for name, picture in pictures.items():
        path = args.output if is_one else args.output.with_stem(f"{args.output.stem}-{name}")
        _write(path, picture)
        print(f"{path}: {name}, {picture.shape[1]} x {picture.shape[0]} pixels")
    for figure in figures_of(predictor.model):
        if ALL in args.what and figure.name not in pictures:
            print(f"{figure.name}: left out, {figure.missing(predictor.model) or 'no person is found'}")


def _check(args):
    """Refuse what is missing or can't be done before the model is read."""
    from dynpose.config import ConfigError
    from dynpose.data.any_image import is_url
    from dynpose.runtime.sessions import is_exported

    if is_exported(args.weights):
        raise ConfigError(
            f"--weights {args.weights}: an exported file gives only the people; give the checkpoint that it is of"
        )
    if args.list:
        return
    missing = [f"--{name}" for name in ("input", "what", "output") if not getattr(args, name)]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} missing: give an image, figures and a file, or --list alone")
    images = [word for word in args.opts if Path(word).is_file()]
    if images:
        raise ConfigError(f"{images[0]}: --input takes one image, and one command draws its figures")
    if len(args.opts) % 2:
        raise ConfigError(f"{' '.join(args.opts)}: overrides of the config are pairs, KEY VALUE")
    if not is_url(args.input) and not Path(args.input).is_file():
        problem = "a folder" if Path(args.input).is_dir() else "no such file"
        raise ConfigError(f"--input {args.input}: {problem}; give one image, by its file or http(s) address")


def _print_figures(method, model, figures):
    print(f"figures of {method}:" if figures else f"{method} has no figures")
    for figure in figures:
        reason = figure.missing(model)
        print(f"  {figure.name}: {figure.shows}" + (f" - not with this config: {reason}" if reason else ""))


def _write(path, picture):
    from PIL import Image

    from dynpose.utils.atomic import atomic_open

    with atomic_open(path, "wb") as file:
        Image.fromarray(picture).save(
            file, "PNG" if path.suffix.lower() == ".png" else "JPEG", quality=92, subsampling=0
        )


def _picture(text):
    # before the model is read
    path = Path(text)
    if path.suffix.lower() not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text}: must end in one of {', '.join(_SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder of the file must exist")
    return path
