"""Launching the processes of a job: detectron2's flags, torchrun and SLURM's srun."""

import argparse
import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import create_ddp_model, default_argument_parser
from detectron2.utils import comm
from torch import nn

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError, check_at_least_one, load_config
from dynpose.data import DatasetError
from dynpose.utils.atomic import atomic_open

from .devices import check_device
from .signals import STOP_SIGNALS
from .watchdog import watched

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# User errors: a single line says everything
_KNOWN_ERRORS = (ConfigError, DatasetError, CheckpointError, OSError)
_EXIT_CODE = 2


class Rank(NamedTuple):
    """The rank of a process in its job.

    Attributes:
        rank: among all processes, from 0.
        world_size: number of processes.
        local_rank: among the processes of this machine, from 0.
        node: unique name of this machine.
        init_method: rendezvous URL in the format of ``torch.distributed``.
        restarts: number of restarts of the job.
    """

    rank: int
    world_size: int
    local_rank: int
    node: str
    init_method: str
    restarts: int = 0


def launch(
    main: Callable[[argparse.Namespace], _Result], args: argparse.Namespace, timeout: timedelta | None = None
) -> _Result | None:
    """Run ``main(args)`` in every process of the job, joining it or spawning it.

    - Under torchrun, and whenever RANK, WORLD_SIZE and LOCAL_RANK are set, this process joins the job.
    - With ``--num-gpus`` or ``--num-machines`` above 1, it spawns the processes of this machine, as detectron2's
      ``launch`` does. In addition, it works on the CPU, forwards SIGTERM and SIGUSR1 to them, exits with their exit
      code, and raises their ConfigError, DatasetError, CheckpointError or OSError. On one machine they use a free port
      unless ``--dist-url`` is given.
    - Under ``srun`` with several tasks, this process joins as one of the tasks.
    - Otherwise it is the only process.

    Processes communicate by NCCL if MODEL.DEVICE is an available GPU, else by gloo. A job that torchrun or SLURM has
    restarted (TORCHELASTIC_RESTART_COUNT or SLURM_RESTART_COUNT is not 0) resumes as with ``--resume``.

    Args:
        main (Callable): importable; called with ``args``.
        args (argparse.Namespace): from detectron2's ``default_argument_parser``.
        timeout (timedelta | None): of a collective operation; None = DISTRIBUTED.TIMEOUT_MINUTES.

    Returns:
        the result of ``main``; None if this process only spawned others.

    Raises:
        ConfigError: flags and environment contradict each other, the environment is incomplete, or the machine has
            fewer GPUs than processes with ``MODEL.DEVICE cuda``.
        SystemExit: with the exit code of a spawned process, unless it is 0.
    """
    num_processes = args.num_gpus * args.num_machines
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        if num_processes > 1:
            raise ConfigError(
                f"--num-gpus {args.num_gpus} --num-machines {args.num_machines} under torchrun, which starts the "
                "processes itself: omit these flags, and pass --nproc-per-node and --nnodes to torchrun. (Without "
                "torchrun: unset RANK, WORLD_SIZE and LOCAL_RANK)"
            )
        return run_as(rank_of_torchrun(os.environ), main, args, timeout)
    if num_processes > 1:
        return _spawn(main, args, timeout)
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return run_as(rank_of_srun(os.environ), main, args, timeout)
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        args.resume = True
    return main(args)


def rank_of_torchrun(environment: Mapping[str, str]) -> Rank:
    """Read torchrun's environment variables.

    Args:
        environment (Mapping[str, str]): RANK, WORLD_SIZE, LOCAL_RANK; MASTER_ADDR and MASTER_PORT are read by torch.
            Without GROUP_RANK, the number of the machine, the host name is used.

    Returns:
        Rank
    """
    return Rank(
        rank=int(environment["RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        local_rank=int(environment["LOCAL_RANK"]),
        node=environment.get("GROUP_RANK") or socket.gethostname(),
        init_method="env://",
        restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)) + int(environment.get("SLURM_RESTART_COUNT", 0)),
    )


def rank_of_srun(environment: Mapping[str, str]) -> Rank:
    """Read the environment variables of a task of ``srun``.

    The rendezvous is at MASTER_ADDR and MASTER_PORT if these are set, else at the name of the step's first machine and
    a port derived from the job and step numbers.

    Args:
        environment (Mapping[str, str])

    Returns:
        Rank

    Raises:
        ConfigError: a variable is missing, or the machines' names can't be read.

    Example::

        >>> rank_of_srun({
        ...     "SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        ...     "SLURM_STEP_NODELIST": "gpu[08-09]", "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0",
        ... }).init_method
        'tcp://gpu08:21234'
    """
    try:
        address = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        # two steps of a job, or two jobs on a machine, rarely get the same port
        port = environment.get("MASTER_PORT") or 20000 + (job + 997 * step) % 10000
        return Rank(
            rank=int(environment["SLURM_PROCID"]),
            world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(environment["SLURM_LOCALID"]),
            node=environment["SLURM_NODEID"],
            init_method=f"tcp://{address}:{port}",
            restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
        )
    except KeyError as error:
        raise ConfigError(
            f"SLURM_STEP_NUM_TASKS is set, but {error.args[0]} is not: start the run with srun, or unset "
            "SLURM_STEP_NUM_TASKS"
        ) from error


def first_host(nodelist: str) -> str:
    """The first machine of a node list in SLURM's compressed form.

    Raises:
        ConfigError: the string is not a node list.

    Example::

        >>> first_host("gpu-a[003-005,9],login1")
        'gpu-a003'
    """
    match = re.match(r"([^\[\],]+)(?:\[([^\[\],-]+)[^\]]*\]([^\[\],]*))?(?:,|$)", nodelist)
    if match is None:
        raise ConfigError(f"SLURM_STEP_NODELIST is {nodelist!r}, which names no machine: set MASTER_ADDR")
    return "".join(part or "" for part in match.groups())


def run_as(
    rank: Rank,
    main: Callable[[argparse.Namespace], _Result],
    args: argparse.Namespace,
    timeout: timedelta | None = None,
) -> _Result:
    """Join the process group, run ``main(args)`` and leave.

    Args:
        rank (Rank): of this process.
        main, args, timeout: see :func:`launch`.

    Returns:
        the result of ``main``.
    """
    if rank.restarts:
        if rank.rank == 0:
            # a warning, since no handler shows lower levels yet
            logger.warning(f"Start {rank.restarts + 1} of this run: it resumes from its last checkpoint")
        args.resume = True
    cfg = load_config(args.config_file, args.opts)
    timeout = timeout or _timeout(cfg)
    backend = _backend(cfg)
    if backend == "nccl":
        torch.cuda.set_device(_gpu_of(rank))
    dist.init_process_group(
        backend, init_method=rank.init_method, rank=rank.rank, world_size=rank.world_size, timeout=timeout
    )
    # detectron2 and torch give every additional group a default timeout
    for group in (_group_by_node(rank.node), comm._get_global_gloo_group()):
        dist.distributed_c10d._set_pg_timeout(timeout, group)
    with watched(cfg.DISTRIBUTED.REPORT_SECONDS):
        result = main(args)
    # Not after an error: the others may wait for this process until the timeout, and its exit notifies them.
    leave()
    return result


def leave() -> None:
    """Undo the setup of :func:`run_as`. All processes leave together."""
    comm.synchronize()
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    dist.destroy_process_group()


def data_parallel(model: nn.Module, find_unused_parameters: bool = False) -> nn.Module:
    """detectron2's ``create_ddp_model``, for the CPU too, and for the process's GPU whatever its local rank.

    Args:
        model (nn.Module): on its device.
        find_unused_parameters (bool): see DistributedDataParallel.

    Returns:
        nn.Module: the model itself if there is only one process.
    """
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [torch.cuda.current_device()] if on_gpu else None
    return create_ddp_model(
        model, broadcast_buffers=False, device_ids=device_ids, find_unused_parameters=find_unused_parameters
    )


def _backend(cfg):
    return "nccl" if _is_cuda(cfg) and torch.cuda.is_available() else "gloo"


def _is_cuda(cfg):
    return cfg.MODEL.DEVICE.partition(":")[0] == "cuda"


def _timeout(cfg):
    check_at_least_one(cfg, "DISTRIBUTED.TIMEOUT_MINUTES")
    return timedelta(minutes=cfg.DISTRIBUTED.TIMEOUT_MINUTES)


def _gpu_of(rank):
    """The index of the GPU of a process."""
    num_gpus = torch.cuda.device_count()
    if num_gpus == 1:
        return 0  # SLURM may expose only the task's GPU
    if rank.local_rank >= num_gpus:
        raise ConfigError(
            f"process {rank.rank} is number {rank.local_rank + 1} of {socket.gethostname()}, where PyTorch finds "
            f"{num_gpus} GPUs: start as many processes as there are GPUs"
        )
    return rank.local_rank


def _group_by_node(node):
    """Make the group of this machine's processes, for detectron2's comm.get_local_rank().

    The function of detectron2's main branch assumes that a machine has consecutive ranks, which ``srun
    --distribution=cyclic`` violates.
    """
    nodes = comm.all_gather(node)
    for name in sorted(set(nodes)):
        group = dist.new_group([rank for rank, other in enumerate(nodes) if other == name])
        if name == node:
            comm._LOCAL_PROCESS_GROUP = group
    return comm._LOCAL_PROCESS_GROUP


def _spawn(main, args, timeout):
    _check_gpus(args)
    url = args.dist_url
    if args.num_machines > 1:
        if url == "auto" or url == _default_url():
            raise ConfigError(
                f"--num-machines {args.num_machines}: give the address of the first, --dist-url tcp://HOST:PORT"
            )
    elif url in ("auto", _default_url()):
        url = f"tcp://127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="dynpose_") as errors:
        context = mp.start_processes(
            _spawned, (main, args, url, timeout, errors), nprocs=args.num_gpus, join=False, start_method="spawn"
        )
        with _forwarding(context.pids()):
            try:
                while not context.join():
                    pass
            except mp.ProcessExitedException as error:
                _raise_first(errors)
                if error.signal_name:
                    print(f"process {error.error_index} of this machine: ended by {error.signal_name}", file=sys.stderr)
                # such as RESUMABLE_EXIT_CODE
                sys.exit(error.exit_code)
            except mp.ProcessRaisedException:
                # a process may report the loss of another one before that one's exit is seen
                _raise_first(errors)
                raise


def _check_gpus(args):
    cfg = load_config(args.config_file, args.opts)
    if not _is_cuda(cfg):
        return
    remedy = "run on a machine that has them, or set MODEL.DEVICE cpu (at the end of the command)"
    check_device(cfg.MODEL.DEVICE, f"--num-gpus {args.num_gpus} with MODEL.DEVICE", remedy)
    if args.num_gpus > torch.cuda.device_count():
        raise ConfigError(
            f"--num-gpus {args.num_gpus}, but PyTorch finds {torch.cuda.device_count()} on this machine; give that "
            f"number, {remedy}"
        )


def _default_url():
    """detectron2's default for ``--dist-url``, the same for all runs of a user."""
    return default_argument_parser().get_default("dist_url")


def _spawned(local_rank, main, args, url, timeout, errors):
    rank = args.machine_rank * args.num_gpus + local_rank
    world_size = args.num_gpus * args.num_machines
    try:
        run_as(Rank(rank, world_size, local_rank, str(args.machine_rank), url), main, args, timeout)
    except _KNOWN_ERRORS as error:
        kind = next(kind for kind in _KNOWN_ERRORS if isinstance(error, kind))
        with atomic_open(os.path.join(errors, str(local_rank))) as f:
            json.dump([_KNOWN_ERRORS.index(kind), str(error)], f)
        sys.exit(_EXIT_CODE)


def _raise_first(errors):
    """Raise the error of the first process that reported one."""
    for name in sorted((name for name in os.listdir(errors) if name.isdigit()), key=int):
        with open(os.path.join(errors, name)) as f:
            kind, message = json.load(f)
        raise _KNOWN_ERRORS[kind](message) from None


@contextmanager
def _forwarding(pids):
    def forward(number, frame):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
