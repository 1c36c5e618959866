"""The settings shared by all implementations, models or configs of a run, and the environment."""

from __future__ import annotations

import contextlib
import datetime
import platform
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dynpose.config import ConfigError
from dynpose.layers import triton_support
from dynpose.utils.environment import commit_of, git_state, versions

from .clocks import Clock, make_cpu_clock, make_wall_clock

# default number of timed rounds
_ROUNDS = {"cuda": 50, "cpu": 7}


@dataclass(frozen=True)
class Settings:
    """The settings from a command's arguments.

    Attributes:
        device: to run on.
        dtype: of the inputs.
        tf32: whether float32 factors may be rounded to TF32.
        cudnn_benchmark: whether cuDNN benchmarks its algorithms.
        deterministic: whether the same inputs must give the same bits. An operation that cannot warns and runs.
        threads: of the CPU; None keeps the current number.
        rounds: number of timed rounds.
        cpu_time: measure whole calls in CPU time of all threads and not in wall-clock time; on a CPU only.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = False
    threads: int | None = None
    rounds: int = 1
    cpu_time: bool = False

    @classmethod
    def from_args(cls, args: Namespace, dtype: torch.dtype = torch.float32) -> Settings:
        """Read the arguments of a command.

        Raises:
            ConfigError: CPU time is requested on a GPU.
        """
        device, cpu_time = choose_device(args.device), getattr(args, "cpu_time", False)
        if cpu_time and device.type != "cpu":
            raise ConfigError(f"--cpu-time: the work of {device.type} takes no CPU time: omit it, or add --device cpu")
        return cls(
            device=device,
            dtype=dtype,
            tf32=args.tf32 and device.type == "cuda" and dtype == torch.float32,
            cudnn_benchmark=args.cudnn_benchmark,
            deterministic=getattr(args, "deterministic", False),
            threads=args.threads,
            rounds=args.repeats or _ROUNDS["cuda" if device.type == "cuda" else "cpu"],
            cpu_time=cpu_time,
        )

    def make_clock(self) -> Clock:
        """Make the clock of whole calls."""
        return make_cpu_clock() if self.cpu_time else make_wall_clock(self.device)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings to PyTorch while entered; a GPU becomes the current device."""
        backends = torch.backends
        with contextlib.ExitStack() as after:
            for owner, name, value in (
                (backends.cuda.matmul, "allow_tf32", self.tf32),
                (backends.cudnn, "allow_tf32", self.tf32),
                (backends.cudnn, "benchmark", self.cudnn_benchmark),
            ):
                after.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            after.callback(
                torch.use_deterministic_algorithms,
                torch.are_deterministic_algorithms_enabled(),
                warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            )
            torch.use_deterministic_algorithms(self.deterministic, warn_only=True)
            after.callback(torch.set_num_threads, torch.get_num_threads())
            if self.threads:
                torch.set_num_threads(self.threads)
            if self.device.type == "cuda":
                after.enter_context(torch.cuda.device(self.device))
            yield

    def report(self) -> dict[str, Any]:
        """Return plain values for a report; the threads are in the environment."""
        return {
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tf32": self.tf32,
            "cudnn_benchmark": self.cudnn_benchmark,
            "deterministic": self.deterministic,
            "rounds": self.rounds,
            "cpu_time": self.cpu_time,
        }


def choose_device(name: str | None) -> torch.device:
    """Return the named device, by default the GPU if there is one; a GPU with its index."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the software and the machine; call it under the settings of the measurement.

    Returns:
        Versions (None if not installed), the commit of the source if known, followed by "+" if files differ from it,
        the device and the threads.
    """
    on_gpu = device.type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **versions(),
        "triton": triton_support.triton.__version__ if triton_support.triton else None,
        "commit": commit_of(git_state()),
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
    }


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
