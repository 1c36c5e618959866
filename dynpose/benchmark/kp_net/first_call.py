"""The cost of the first calls of the fused kernels, which are compiled, loaded and tuned."""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from typing import Any

import torch

from dynpose.benchmark.clocks import make_wall_clock
from dynpose.benchmark.memory import in_fresh_process
from dynpose.benchmark.settings import Settings
from dynpose.methods import KPNetBenchmark

from .case import FUSED, KPNetCase

_INFERENCE_INSTANCES = 100
# The second, third, ... sizes are maps of other images: short side 800 or 640 pixels, several aspect ratios.
_MAP_SIZES = ((100, 167), (100, 134), (134, 100), (100, 150), (80, 107))


def first_calls(method: str, benchmark: KPNetBenchmark, settings: Settings) -> list[dict[str, Any]]:
    """Time first calls in two fresh processes, which share a Triton cache that is empty before the first of them.

    Returns:
        A row each for inference and training: seconds of the first call with the empty and with the filled cache, of
        the slowest first call at another map size with either, and of later calls (median).
    """
    cases = [
        [KPNetCase(method, benchmark.channels, number, training, map_size, settings.dtype) for map_size in _MAP_SIZES]
        for training, number in ((False, _INFERENCE_INSTANCES), (True, benchmark.num_sampled))
    ]
    torch.cuda.empty_cache()  # this process must not keep the device's memory from the others
    with tempfile.TemporaryDirectory() as folder:
        empty, filled = (
            in_fresh_process(time_calls, cases, settings, environment={"TRITON_CACHE_DIR": folder}) for _ in range(2)
        )
    return [
        {
            "case": of_mode[0].name,
            "instances": of_mode[0].num_instances,
            "empty_cache_s": of_empty["first"],
            "filled_cache_s": of_filled["first"],
            "new_size_s": of_filled["new_size"],
            "new_size_empty_cache_s": of_empty["new_size"],
            "later_s": of_filled["later"],
        }
        for of_mode, of_empty, of_filled in zip(cases, empty, filled)
    ]


def time_calls(cases: list[list[KPNetCase]], settings: Settings, implementation: str = FUSED) -> list[dict[str, Any]]:
    """Time calls until their results are available; to be called in a fresh process.

    Args:
        cases: by mode, one for each map size. The first mode includes the cost that all modes share.
        settings: of the run.
        implementation: name of the called implementation.

    Returns:
        For each mode: seconds of the ``first`` call, of ``later`` ones and of the slowest call at a ``new_size``.
    """
    with Settings(settings.device, tf32=settings.tf32).applied():
        return [_time_mode(of_mode, settings.device, implementation) for of_mode in cases]


def _time_mode(cases, device, implementation):
    clock = make_wall_clock(device)
    calls = [partial(case.run, implementation, case.make_inputs(device, 0)) for case in cases]
    first, _ = clock(calls[0])
    later = statistics.median(clock(calls[0])[0] for _ in range(5))
    return {"first": first, "later": later, "new_size": max(clock(call)[0] for call in calls[1:])}
