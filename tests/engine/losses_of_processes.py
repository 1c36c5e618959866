"""Two training steps of each method on a batch that the processes share: started by test_launch.py in many ways.

The losses, as a run's metrics have them, and the processes' places go to the file named losses.pth in OUTPUT_DIR. With
detectron2_launch as the first word of the command line, detectron2's own launcher starts the processes.
"""

import functools
import os
import sys

import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser
from detectron2.engine import launch as launch_of_detectron2
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from tiny_methods import METHODS, USES_ALL, global_batch, tiny_model

from dynpose.config import load_config
from dynpose.engine import TrainingStep, launch
from dynpose.engine.launching import data_parallel

_BY_DETECTRON2 = sys.argv[1:2] == ["detectron2_launch"]
NUM_STEPS = 2
# A small rate: where single ReLUs cross zero, gradients jump, and the second losses with them.
LR = 1e-5


def losses_of(method, rank=0, world_size=1):
    model = tiny_model(method)
    optimizer = torch.optim.SGD(model.parameters(), LR)
    parallel = data_parallel(model, find_unused_parameters=not USES_ALL[method])
    step = TrainingStep(parallel, [global_batch()[rank::world_size]] * NUM_STEPS, optimizer)
    with EventStorage() as storage:
        for step.iter in range(NUM_STEPS):
            storage.iter = step.iter
            step.run_step()
    if rank:
        return {}
    names = [name for name in storage.histories() if name.startswith("loss_")]
    return {name: [value for value, _ in storage.history(name).values()] for name in names}


def main(args):
    torch.set_num_threads(1)
    rank, world_size = comm.get_rank(), comm.get_world_size()
    # of every process: rank, local rank, local size, and whether it is to resume
    places = comm.all_gather((rank, comm.get_local_rank(), comm.get_local_size(), args.resume))
    methods = os.environ.get("DYNPOSE_TEST_METHODS", " ".join(METHODS)).split()
    losses = {method: losses_of(method, rank, world_size) for method in methods}
    if comm.is_main_process():
        folder = load_config(opts=args.opts).OUTPUT_DIR
        torch.save({"places": places, "losses": losses}, os.path.join(folder, "losses.pth"))


def _let_detectron2_launch_without_gpus():
    """detectron2 0.6's launcher insists on GPUs and NCCL; its main branch takes gloo where there is none."""
    # the processes need not import everything again, nor receive the replacements made here
    fork = functools.partial(torch.multiprocessing.start_processes, start_method="fork")
    torch.multiprocessing.spawn = torch.multiprocessing.start_processes = fork
    if not hasattr(comm, "create_local_process_group"):
        join = dist.init_process_group
        dist.init_process_group = lambda backend, **kwargs: join("gloo", **kwargs)
        torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 2
        torch.cuda.set_device = lambda device: None


if __name__ == "__main__":
    args = default_argument_parser().parse_args(sys.argv[1 + _BY_DETECTRON2 :])
    if _BY_DETECTRON2:
        _let_detectron2_launch_without_gpus()
        launch_of_detectron2(main, args.num_gpus, dist_url="auto", args=(args,))
    else:
        launch(main, args)
