#!/usr/bin/env python
"""Train or evaluate a dynpose model.

python train_net.py --config-file FCPose/R_50_1x.yaml --num-gpus 8
python train_net.py --config-file FCPose/R_50_1x.yaml --eval-only MODEL.WEIGHTS model_final.pth
torchrun --nproc-per-node 8 train_net.py --config-file FCPose/R_50_1x.yaml
srun --ntasks-per-node 8 python train_net.py --config-file FCPose/R_50_1x.yaml    (docs/clusters.md)
"""

import sys

from dynpose.tools.ending import exit_code


def run() -> None:
    """Train or evaluate; the results go to OUTPUT_DIR."""
    from detectron2.engine import default_argument_parser

    from dynpose.engine import launch, main

    launch(main, default_argument_parser(epilog=__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(exit_code("train_net.py", run, is_run=True))
