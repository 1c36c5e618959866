"""Runs a function in several processes of one gloo group."""

import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm

_MINUTES = 5


def run_in_processes(function, *arguments, folder, num_processes=2):
    """What `function(rank, *arguments)` returns in each of the processes, in the order of the ranks.

    `function` must be importable (the processes are spawned) and its results picklable.
    """
    torch.multiprocessing.spawn(_run, (function, arguments, str(folder), num_processes), nprocs=num_processes)
    return [torch.load(_result_file(folder, rank), weights_only=False) for rank in range(num_processes)]


def _result_file(folder, rank):
    return Path(folder, f"result_{rank}.pth")


def _run(rank, function, arguments, folder, num_processes):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=num_processes,
        timeout=timedelta(minutes=_MINUTES),
    )
    try:
        torch.save(function(rank, *arguments), _result_file(folder, rank))
        # neither leaves while the other is still at work
        dist.barrier()
    except BaseException:
        traceback.print_exc()
        raise
    # detectron2 keeps the group in a cache, so that its threads would outlive it
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's teardown: a thread of gloo that asks for the interpreter's lock after its end aborts the
    # process ("terminate called without an active exception").
    os._exit(0)
