#!/usr/bin/env python
"""Submit a training to SLURM with submitit.

python projects/cluster/submit.py --nodes 2 --gpus-per-node 8 --partition gpu -- \
    --config-file configs/FCPose/R_50_3x.yaml OUTPUT_DIR /shared/runs/fcpose

What follows ``--`` goes to train_net.py. A run that is asked to stop saves itself and is queued again.
"""

import argparse
import os
import subprocess
from pathlib import Path

from detectron2.engine import default_argument_parser

from dynpose.config import ConfigError, load_config
from dynpose.engine import launch, main
from dynpose.engine.signals import RESUMABLE_EXIT_CODE


class Training:
    """A task of a job: what submitit calls in each of them.

    Args:
        words (Sequence[str]): arguments of train_net.py.
    """

    def __init__(self, words):
        self.words = list(words)

    def __call__(self):
        """Train. A run that has saved itself is queued again by its first task, and ends with its exit code."""
        try:
            return launch(main, default_argument_parser().parse_args(["--resume", *self.words]))
        except SystemExit as end:
            if end.code == RESUMABLE_EXIT_CODE and os.environ.get("SLURM_PROCID") == "0":
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            raise


def submit(words, *, nodes=1, gpus_per_node=8, cpus_per_gpu=8, hours=24.0, partition=None, name="dynpose", warning=300):
    """Submit a training.

    Args:
        words (Sequence[str]): arguments of train_net.py; all machines must see its OUTPUT_DIR.
        nodes (int): machines.
        gpus_per_node (int): of each, and tasks on it.
        cpus_per_gpu (int): cores of a task.
        hours (float): limit of the job, which is queued again after that.
        partition (str | None): None = the cluster's default.
        name (str): of the job.
        warning (int): seconds before the limit at which the run saves itself.

    Returns:
        submitit.Job: its logs are in ``<OUTPUT_DIR>/submitit``.

    Raises:
        ConfigError: submitit is not installed, or the run's config is faulty.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed: pip install 'dynpose[slurm]'") from error
    args = default_argument_parser().parse_args(list(words))
    folder = Path(load_config(args.config_file, args.opts).OUTPUT_DIR, "submitit")
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(
        name=name,
        nodes=nodes,
        tasks_per_node=gpus_per_node,
        gpus_per_node=gpus_per_node,
        cpus_per_task=cpus_per_gpu,
        timeout_min=round(60 * hours),
        # In the place of submitit's own signal, at which it would queue the job again before the run has saved itself
        slurm_additional_parameters={"requeue": True, "signal": f"USR1@{warning}"},
        **({"slurm_partition": partition} if partition else {}),
    )
    return executor.submit(Training(words))


def _main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="and tasks on each machine")
    parser.add_argument("--cpus-per-gpu", type=int, default=8)
    parser.add_argument("--hours", type=float, default=24.0, help="limit of the job")
    parser.add_argument("--partition")
    parser.add_argument("--name", default="dynpose", help="of the job")
    parser.add_argument("--warning", type=int, default=300, help="seconds before the limit when the run saves itself")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- ARGUMENTS_OF_TRAIN_NET")
    options = vars(parser.parse_args())
    words = options.pop("words")
    job = submit(words[1:] if words[:1] == ["--"] else words, **options)
    print(f"Submitted job {job.job_id}; its logs are in {job.paths.folder}")


if __name__ == "__main__":
    _main()
