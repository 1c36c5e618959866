"""Training runs in processes of their own, some of which end by SIGKILL or a signal on the way: for test_restart.py.

It reads lists of runs, a line of JSON each, forks for each run in turn, so that torch is imported once, and answers
with a line of JSON: how each process of each run ended, by its exit code or minus the number of the signal.

A run has the arguments of ``train_net.py`` ("config", "opts", "resume"; its set-up is without detectron2's reports,
which take longer than the run, and each stage of a ResNet has one block), perhaps a number of "processes" and a file
"store" for them to meet, and where it ends, counted within the run: "backward", the number of a backward pass;
"rename", that of a file about to be put in its place, or its name; "write", that of a checkpoint half of which is
written; "evaluate", that of an evaluated image; and "signal", a number that the first process and its data workers get
in the backward pass instead of SIGKILL. With "full", the number of a checkpoint, the system lets it have half of its
bytes. "scored" replaces AP, which is 0 for such models, by a number that depends on their weights. A run that takes
more than a number of "seconds" fails.
"""

import io
import json
import logging
import os
import resource
import signal
import sys
import traceback

import torch
import torch.distributed as dist
import torch.utils.tensorboard
from detectron2.modeling import ResNet
from detectron2.utils.env import seed_all_rng

from dynpose.config import load_config
from dynpose.data import register_datasets_from_cfg, schema_from_cfg, schema_to_cfg
from dynpose.engine import PoseTrainer
from dynpose.evaluation import PoseEvaluator

# Within which a run must end, unless it says otherwise
_SECONDS = 100


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _count_down(number, action):
    left = [number]

    def count(*_):
        left[0] -= 1
        if left[0] == 0:
            action()

    return count


def _end_in_backward(number, action):
    count, backward = _count_down(number, action), torch.Tensor.backward

    def counting(*args, **kwargs):
        count()
        return backward(*args, **kwargs)

    torch.Tensor.backward = counting


def _end_at_rename(which):
    is_name = isinstance(which, str)
    count = _count_down(1 if is_name else which, _die)

    def hear(event, arguments):
        if event == "os.rename" and (not is_name or os.path.basename(arguments[1]) == which):
            count()

    sys.addaudithook(hear)


def _end_in_evaluation(number):
    count, process = _count_down(number, _die), PoseEvaluator.process

    def counting(*args):
        count()
        process(*args)

    PoseEvaluator.process = counting


def _replace_save(number, replacement):
    """Have the checkpoint of a number be written by something that gets its content and its file."""
    save, left = torch.save, [number]

    def counting(data, file, *args, **kwargs):
        left[0] -= 1
        if left[0]:
            return save(data, file, *args, **kwargs)
        content = io.BytesIO()
        save(data, content, *args, **kwargs)
        return replacement(content.getvalue(), file, lambda: save(data, file, *args, **kwargs))

    torch.save = counting


def _write_half(content, file, _):
    file.write(content[: len(content) // 2])
    file.flush()
    os.fsync(file.fileno())
    _die()


def _fill_disk(content, _, save):
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, resource.RLIM_INFINITY))
    save()


def _score_by_weights():
    test = PoseTrainer.test.__func__

    def scored(cls, cfg, model, *args):
        results = test(cls, cfg, model, *args)
        weights = sum(parameter.detach().double().sum().item() for parameter in model.parameters())
        if results:  # in the main process
            results["keypoints"]["AP"] = 1000 * weights % 100
        return results

    PoseTrainer.test = classmethod(scored)


def _shorten_resnet():
    """Build one block per stage: most of the time of a run goes by the number of its parameter tensors."""
    make_stage = ResNet.make_stage

    def make_short_stage(*, num_blocks, stride_per_block, **kwargs):
        return make_stage(num_blocks=1, stride_per_block=stride_per_block[:1], **kwargs)

    ResNet.make_stage = staticmethod(make_short_stage)


def _prepare_end(run, rank):
    if "backward" in run and rank == 0:
        # data workers are in the process's group
        os.setpgid(0, 0)
        number = run.get("signal")
        _end_in_backward(run["backward"], (lambda: os.killpg(0, number)) if number else _die)
    if "rename" in run:
        _end_at_rename(run["rename"])
    if "evaluate" in run:
        _end_in_evaluation(run["evaluate"])
    if "write" in run:
        _replace_save(run["write"], _write_half)
    if "full" in run:
        _replace_save(run["full"], _fill_disk)


def _run(run, rank):
    # a run that hangs, such as one process that waits for another, fails
    signal.alarm(run.get("seconds", _SECONDS))
    torch.set_num_threads(1)
    if run.get("processes", 1) > 1:
        dist.init_process_group("gloo", init_method=f"file://{run['store']}", rank=rank, world_size=run["processes"])
    _shorten_resnet()
    _prepare_end(run, rank)
    if run.get("scored"):
        _score_by_weights()
    cfg = load_config(run["config"], run["opts"])
    register_datasets_from_cfg(cfg)
    schema_to_cfg(cfg, schema_from_cfg(cfg))
    cfg.freeze()
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    seed_all_rng(cfg.SEED)
    trainer = PoseTrainer(cfg)
    trainer.resume_or_load(resume=run["resume"])
    trainer.train()


def _fork(run, rank):
    pid = os.fork()
    if pid:
        return pid
    # printed lines are no answer
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    code = 1
    try:
        _run(run, rank)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def _wait(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    for line in sys.stdin:
        codes = []
        for run in json.loads(line):
            codes += _wait([_fork(run, rank) for rank in range(run.get("processes", 1))])
        print(json.dumps(codes), flush=True)
