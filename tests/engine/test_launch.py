"""Runs started by detectron2's flags, torchrun and srun: one run's losses, places, exit codes and restarts."""

import os
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.run
from detectron2.engine import default_argument_parser
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from losses_of_processes import losses_of
from processes import run_scripts
from tiny_methods import METHODS

from dynpose.config import ConfigError
from dynpose.data import DatasetError
from dynpose.engine import launch
from dynpose.engine.launching import Rank, _gpu_of, first_host, rank_of_srun, rank_of_torchrun, run_as

HERE = Path(__file__).parent
LOSSES = str(HERE / "losses_of_processes.py")
TORCHRUN = torch.distributed.run.__file__
SECONDS = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_with(**environment):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "TORCHELASTIC_"))}
    paths = os.pathsep.join(map(str, [HERE.parents[1], HERE.parent, HERE]))
    return {**inherited, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}


@pytest.fixture(scope="module")
def alone():
    """The losses of one process with the whole batch."""
    return {method: losses_of(method) for method in METHODS}


def assert_same_losses(folder, alone, places, methods):
    result = torch.load(folder / "losses.pth")
    assert result["places"] == places
    assert list(result["losses"]) == list(methods)
    for method in methods:
        assert result["losses"][method].keys() == alone[method].keys()
        for name, values in alone[method].items():
            assert result["losses"][method][name] == pytest.approx(values, rel=1e-5, abs=1e-6), (method, name)


ONE_NODE = [(0, 0, 2, False), (1, 1, 2, False)]
TWO_NODES = [(0, 0, 1, False), (1, 0, 1, False)]


def test_detectron2s_launcher_gives_one_processs_losses(tmp_path, alone):
    """One method: how the processes have been started makes no difference between methods."""
    words = [LOSSES, "detectron2_launch", "--num-gpus", "2", "OUTPUT_DIR", str(tmp_path)]
    run_scripts((words, environment_with(DYNPOSE_TEST_METHODS="FCPose")), folder=tmp_path, seconds=SECONDS)
    assert_same_losses(tmp_path, alone, ONE_NODE, ["FCPose"])


def test_two_agents_of_torchrun_give_one_processs_losses(tmp_path, script_command, alone):
    """Two nodes on loopback, every method."""
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    script = ["--no-python", *script_command, LOSSES, "OUTPUT_DIR", str(tmp_path)]
    agents = [([TORCHRUN, *nodes, "--node-rank", str(node), *script], environment_with()) for node in range(2)]
    run_scripts(*agents, folder=tmp_path, seconds=SECONDS)
    assert_same_losses(tmp_path, alone, TWO_NODES, METHODS)


def test_tasks_of_srun(tmp_path):
    """Two tasks with the environment that srun gives them, on two nodes of loopback; the job has been requeued."""
    step = {"SLURM_STEP_NODELIST": "localhost,other", "SLURM_STEP_NUM_TASKS": "2", "SLURM_RESTART_COUNT": "1"}
    step |= {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "MASTER_PORT": str(free_port()), "DYNPOSE_TEST_METHODS": ""}
    words = [LOSSES, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)]
    tasks = [{"SLURM_PROCID": task, "SLURM_LOCALID": "0", "SLURM_NODEID": task} for task in "01"]
    run_scripts(*((words, environment_with(**step, **task)) for task in tasks), folder=tmp_path, seconds=SECONDS)
    assert torch.load(tmp_path / "losses.pth")["places"] == [(0, 0, 1, True), (1, 0, 1, True)]


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu1", "gpu1"),
        ("gpu-1,gpu-2", "gpu-1"),
        ("gpu[08-11]", "gpu08"),
        ("gpu-a[003-005,9],login1", "gpu-a003"),
        ("gpu[7]", "gpu7"),
        ("rack[1-2]-ib", "rack1-ib"),
        ("a.b.org,c", "a.b.org"),
    ],
)
def test_the_first_machine_of_slurms_short_form(nodelist, host):
    assert first_host(nodelist) == host


@pytest.mark.parametrize("nodelist", ["", "[1-2]", "a[", "gpu[]"])
def test_a_list_that_names_no_machine(nodelist):
    with pytest.raises(ConfigError, match=r"names no machine: set MASTER_ADDR"):
        first_host(nodelist)


SRUN = {
    "SLURM_PROCID": "9",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[08-09]",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
}


def test_srun_environment():
    rank = rank_of_srun(SRUN)
    assert (rank.rank, rank.world_size, rank.local_rank, rank.node, rank.restarts) == (9, 16, 1, "1", 0)
    assert rank.init_method == "tcp://gpu08:21234"
    assert rank_of_srun({**SRUN, "SLURM_STEP_ID": "1"}).init_method != rank.init_method
    own = rank_of_srun({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5", "SLURM_RESTART_COUNT": "2"})
    assert (own.init_method, own.restarts) == ("tcp://10.0.0.1:5", 2)
    with pytest.raises(ConfigError, match="SLURM_STEP_NUM_TASKS is set, but SLURM_LOCALID is not"):
        rank_of_srun({key: value for key, value in SRUN.items() if key != "SLURM_LOCALID"})


def test_torchrun_environment():
    environment = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
    assert rank_of_torchrun(environment)[:5] == (3, 4, 1, "1", "env://")
    restarted = {**environment, "TORCHELASTIC_RESTART_COUNT": "1"}
    assert [rank_of_torchrun(one).restarts for one in (environment, restarted)] == [0, 1]


def arguments(**flags):
    flags = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto", "resume": False, **flags}
    return Namespace(config_file="", opts=["MODEL.DEVICE", "cpu"], **flags)


DEFAULT_URL = default_argument_parser().get_default("dist_url")


@pytest.mark.parametrize(
    ("environment", "flags", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {"num_gpus": 2}, "--num-gpus 2 .* under torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {"num_machines": 2}, "--num-machines 2 under torchrun"),
        ({}, {"num_machines": 2}, r"--num-machines 2: give the address of the first, --dist-url tcp://HOST:PORT"),
        ({}, {"num_machines": 2, "dist_url": DEFAULT_URL}, "--num-machines 2: give the address of the first"),
    ],
)
def test_contradictions(monkeypatch, environment, flags, message):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=message):
        launch(print, arguments(**flags))


@pytest.mark.parametrize(
    ("num_gpus", "device", "message"),
    [
        (0, "cuda", r"^--num-gpus 8 with MODEL\.DEVICE 'cuda': PyTorch finds no GPU on this machine; run on a machine"),
        (1, "cuda", r"^--num-gpus 8, but PyTorch finds 1 on this machine; give that number, .* MODEL\.DEVICE cpu"),
        (4, "cuda", r"^--num-gpus 8, but PyTorch finds 4 on this machine"),
        (8, "cuda", None),
        (0, "cpu", None),
    ],
)
def test_more_processes_than_gpus(monkeypatch, num_gpus, device, message):
    class Started(Exception):
        pass

    def start_processes(*arguments, nprocs, **options):
        assert nprocs == 8
        raise Started

    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_processes)
    args = arguments(num_gpus=8)
    args.opts = ["MODEL.DEVICE", device]
    with pytest.raises(ConfigError if message else Started, match=message):
        launch(print, args)


@pytest.mark.parametrize(("local_rank", "num_gpus", "index"), [(1, 4, 1), (3, 1, 0), (4, 4, None)])
def test_the_gpu_of_a_process(monkeypatch, local_rank, num_gpus, index):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    rank = Rank(12, 16, local_rank, "b", "env://")
    if index is None:
        with pytest.raises(ConfigError, match=r"process 12 is number 5 of .*, where PyTorch finds 4 GPUs"):
            _gpu_of(rank)
    else:
        assert _gpu_of(rank) == index


def test_two_runs_of_a_user_meet_at_different_ports(monkeypatch):
    """detectron2's port is made of the user's number. One that is given is kept."""
    urls = []

    def start_processes(function, arguments, **options):
        urls.append(arguments[2])
        # as if it had ended
        return Namespace(pids=list, join=lambda: True)

    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_processes)
    for url in (DEFAULT_URL, DEFAULT_URL, "auto", "tcp://127.0.0.1:1234"):
        launch(print, arguments(num_gpus=2, dist_url=url))
    assert all(url.startswith("tcp://127.0.0.1:") for url in urls)
    assert urls[3] == "tcp://127.0.0.1:1234"
    assert len({*urls, DEFAULT_URL}) == 5


def test_the_time_out_is_a_key_for_all_groups():
    def time_outs(_):
        groups = (dist.group.WORLD, comm._LOCAL_PROCESS_GROUP, comm._get_global_gloo_group())
        return {group._get_backend(torch.device("cpu")).options._timeout for group in groups}

    def run(opts):
        args = arguments()
        args.opts += opts
        return run_as(Rank(0, 1, 0, "a", f"tcp://127.0.0.1:{free_port()}"), time_outs, args)

    assert run([]) == {DEFAULT_TIMEOUT}
    assert run(["DISTRIBUTED.TIMEOUT_MINUTES", "7"]) == {timedelta(minutes=7)}
    with pytest.raises(ConfigError, match=r"DISTRIBUTED\.TIMEOUT_MINUTES"):
        run(["DISTRIBUTED.TIMEOUT_MINUTES", "0"])


def use_start_method(monkeypatch, method):
    """Have processes started without importing everything again; test_train_net.py starts them as users do."""
    start_processes = torch.multiprocessing.start_processes
    monkeypatch.setattr(
        torch.multiprocessing,
        "start_processes",
        lambda *arguments, **options: start_processes(*arguments, **{**options, "start_method": method}),
    )


def _fail(args):
    if comm.get_rank() == 1:
        raise args.error
    # until it notices that the other has ended
    comm.synchronize()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DatasetError("a.json: is broken;\nmend it"), DatasetError, r"^a\.json: is broken;\nmend it$"),
        (FileNotFoundError(2, "No such file or directory", "a"), OSError, r"No such file or directory: 'a'$"),
        (KeyError("bug"), torch.multiprocessing.ProcessRaisedException, "(?s)Traceback"),
    ],
)
def test_an_error_of_one_process_is_the_runs(monkeypatch, error, kind, message):
    use_start_method(monkeypatch, "fork")
    with pytest.raises(kind, match=message):
        launch(_fail, arguments(num_gpus=2, error=error))


@pytest.mark.parametrize(("count", "resume"), [(None, False), ("0", False), ("1", True)])
def test_a_requeued_job_of_one_process_resumes(monkeypatch, count, resume):
    # the script of a batch job, and a step of one task, have some of srun's variables
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    if count is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    assert launch(lambda args: args.resume, arguments()) is resume


def test_torchrun_starts_a_run_again_from_its_checkpoint(tmp_path, script_command):
    options = ["--standalone", "--nproc-per-node", "1", "--max-restarts", "1", "--monitor-interval", "0.2"]
    script = ["--no-python", *script_command, str(HERE / "dying_run.py"), "OUTPUT_DIR", str(tmp_path)]
    run_scripts(([TORCHRUN, *options, *script], environment_with()), folder=tmp_path, seconds=SECONDS)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("Starting training from iteration 0") == 1
    assert log.count("Starting training from iteration 2") == 1
    assert torch.load(tmp_path / "model_final.pth", weights_only=False)["iteration"] == 2


def _wait_for_a_signal(args):
    """A process that ends with exit code 75 at SIGUSR1."""
    folder, rank = Path(args.opts[-1]), comm.get_rank()

    def end(number, frame):
        (folder / f"got_{rank}").touch()
        # neither ends before the other has its signal
        comm.synchronize()
        sys.exit(75)

    signal.signal(signal.SIGUSR1, end)
    (folder / f"ready_{comm.get_local_rank()}").touch()
    time.sleep(SECONDS)


def test_our_own_flags_pass_signals_and_exit_codes(monkeypatch, tmp_path):
    """SIGUSR1 to the starting process reaches both of its processes, whose exit code becomes its own."""
    before = signal.getsignal(signal.SIGUSR1)

    def signal_when_ready():
        deadline = time.monotonic() + SECONDS
        while len(list(tmp_path.glob("ready_*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=signal_when_ready)
    thread.start()
    use_start_method(monkeypatch, "forkserver")
    args = arguments(num_gpus=2)
    args.opts += ["OUTPUT_DIR", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        launch(_wait_for_a_signal, args)
    thread.join()
    assert end.value.code == 75
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got_0", "got_1", "ready_0", "ready_1"]
    assert signal.getsignal(signal.SIGUSR1) is before
