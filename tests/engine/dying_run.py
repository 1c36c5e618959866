"""A run of three iterations with a checkpoint after each, that dies once, after its second: for test_launch.py."""

import os
import sys

import torch
from detectron2.engine import default_argument_parser
from test_training import CONFIG, TINY

from dynpose.engine import PoseTrainer, launch, main

if __name__ == "__main__":
    torch.set_num_threads(1)
    opts = [*TINY, "SOLVER.MAX_ITER", "3", "SOLVER.CHECKPOINT_PERIOD", "1", "DATASETS.TEST", "()"]
    args = default_argument_parser().parse_args(["--config-file", CONFIG, *opts, *sys.argv[1:]])
    after_step = PoseTrainer.after_step

    def die_once(trainer):
        after_step(trainer)
        if trainer.iter == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os._exit(1)

    PoseTrainer.after_step = die_once
    launch(main, args)
