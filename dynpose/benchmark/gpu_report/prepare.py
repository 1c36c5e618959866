"""A part of the report: everything that needs no GPU, before the first part that does.

Modules are compiled to bytecode, so that the processes of the other parts start sooner, and the synthetic images of the
training are drawn.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog

from dynpose.config import load_config
from dynpose.data.synthetic import register_synthetic_pose_from_cfg

# What every part imports, and what may come from a folder without bytecode
_PACKAGES = ("dynpose", "detectron2", "fvcore", "iopath", "omegaconf", "pycocotools", "faster_coco_eval")


def synthetic_root(work: str) -> str:
    """The folder of the synthetic images within the temporary folder of the parts."""
    return str(Path(work, "synthetic"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, help="temporary folder of all parts")
    parser.add_argument("--config-file", required=True, help="of the training")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    args = parser.parse_args(argv)
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        for folder in (found.submodule_search_locations if found else None) or ():
            # A folder that can't be written, and modules for other versions of Python, are left alone.
            compileall.compile_dir(folder, quiet=2, workers=0)
    cfg = load_config(args.config_file, [*args.opts, "DATASETS.SYNTHETIC.ROOT", synthetic_root(args.work)])
    register_synthetic_pose_from_cfg(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        DatasetCatalog.get(name)  # draws the images


if __name__ == "__main__":
    main()
