"""Runs a function in several processes of one gloo group, and scripts, without importing everything for each anew."""

import contextlib
import json
import os
import runpy
import socket
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm

_MINUTES = 5

# The processes are forked from one that has imported these and does nothing else, so that importing takes time once.
_context = torch.multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["dynpose.engine.entry", "dynpose.engine.predictor", "dynpose.modeling"])


def run_in_processes(function, *arguments, folder, num_processes=2):
    """What `function(rank, *arguments)` returns in each of the processes, in the order of the ranks.

    `function` must be importable (the processes start anew) and its results picklable. The processes' output is
    printed at their end.
    """
    try:
        torch.multiprocessing.start_processes(
            _run, (function, arguments, str(folder), num_processes), num_processes, start_method="forkserver"
        )
    finally:
        for rank in range(num_processes):
            for name in ("stdout", "stderr"):
                print(_file(name, folder, rank).read_text(), end="", file=getattr(sys, name))
    return [torch.load(_file("result", folder, rank), weights_only=False) for rank in range(num_processes)]


def run_scripts(*scripts, folder, seconds=60 * _MINUTES):
    """Run scripts side by side, each given by its words and its environment, and check that all exit with 0."""
    processes = []
    for number, (words, environment) in enumerate(scripts):
        processes.append(_context.Process(target=_run_script, args=(words, environment, str(folder), number)))
        processes[-1].start()
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    outputs = [_file(name, folder, rank).read_text() for rank in range(len(scripts)) for name in ("stdout", "stderr")]
    assert [process.exitcode for process in processes] == [0] * len(scripts), outputs


@contextlib.contextmanager
def script_server():
    """Yield the words of a command that runs a script, whose name and words follow them.

    The script runs in a process forked by a server, with the command's environment, input and output, and the command
    ends with the script's exit code. Signals to the command do not reach the script.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
            listener.listen()
            server = _context.Process(target=_serve, args=(listener,))
            server.start()
        try:
            yield [sys.executable, str(Path(__file__).with_name("forked_script.py")), name]
        finally:
            server.kill()
            server.join()


def _serve(listener):
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            connection.sendall(b"%d\n" % _run_requested_script(connection))
            os._exit(0)
        connection.close()


def _run_requested_script(connection):
    """Run the script of a request in a process and return its exit code."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as request:
        words, environment = json.loads(request.readline())
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for target, file in enumerate(files):
        os.dup2(file, target)
    # multiprocessing has opened another one
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  until the process ends
    code = 1
    try:
        _run_as_main(words, environment)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # as in `_run`
        os._exit(code)


def _run_script(words, environment, folder, number):
    _redirect_output(folder, number)
    _run_as_main(words, environment)


def _run_as_main(words, environment):
    _reset_start_method()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def _reset_start_method():
    """Give a process the platform's default, which a process of a fork server does not have.

    Otherwise the workers of its data loader come from a new fork server, which imports everything again and outlives a
    process that is killed.
    """
    torch.multiprocessing.set_start_method(None, force=True)


def _file(name, folder, rank):
    return Path(folder, f"{name}_{rank}")


def _run(rank, function, arguments, folder, num_processes):
    _redirect_output(folder, rank)
    _reset_start_method()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=num_processes,
        timeout=timedelta(minutes=_MINUTES),
    )
    try:
        torch.save(function(rank, *arguments), _file("result", folder, rank))
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


def _redirect_output(folder, rank):
    """Write standard output and errors to files: those inherited are of the process that was forked from."""
    for name in ("stdout", "stderr"):
        with open(_file(name, folder, rank), "w") as output:
            os.dup2(output.fileno(), getattr(sys, name).fileno())
