#!/usr/bin/env python
"""Train or evaluate a dynpose model.

python train_net.py --config-file configs/FCPose/R_50_1x.yaml --num-gpus 8
python train_net.py --config-file configs/FCPose/R_50_1x.yaml --eval-only MODEL.WEIGHTS model_final.pth
"""

from detectron2.engine import default_argument_parser, launch

from dynpose.engine import main

if __name__ == "__main__":
    args = default_argument_parser(epilog=__doc__).parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
