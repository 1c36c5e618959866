"""What the first calls of the fused kernels cost: they are compiled, loaded and tuned."""

from __future__ import annotations

import statistics
import tempfile
from functools import partial

import torch

from .contestants import FUSED
from .kp_net import CHANNELS, KPNetCase
from .measuring import in_fresh_process, make_wall_clock, torch_settings

# Of FCPose. The second, third, ... sizes are maps of other images: short side 800 or 640 pixels, several aspect ratios.
_INSTANCES = {"inference": 100, "training": 50}
_MAP_SIZES = ((100, 167), (100, 134), (134, 100), (100, 150), (80, 107))


def measure(device: torch.device, dtype: torch.dtype, tf32: bool) -> list[dict]:
    """Time first calls in two fresh processes, which share a Triton cache that is empty before the first of them.

    Returns:
        A row each for inference and training: seconds of the first call with the empty and with the filled cache, of
        the dearest first call at another map size with either, and of later calls (median).
    """
    torch.cuda.empty_cache()  # this process must not keep the device's memory from the others
    with tempfile.TemporaryDirectory() as folder:
        empty, filled = (
            in_fresh_process(time_calls, device, dtype, tf32, environment={"TRITON_CACHE_DIR": folder})
            for _ in range(2)
        )
    return [
        {
            "case": f"FCPose {mode}",
            "instances": _INSTANCES[mode],
            "empty_cache_s": empty[mode]["first"],
            "filled_cache_s": filled[mode]["first"],
            "new_size_s": filled[mode]["new_size"],
            "new_size_empty_cache_s": empty[mode]["new_size"],
            "later_s": filled[mode]["later"],
        }
        for mode in _INSTANCES
    ]


def time_calls(device: torch.device, dtype: torch.dtype, tf32: bool, map_sizes=_MAP_SIZES, contestant=FUSED) -> dict:
    """Time calls until their results are there; to be called in a fresh process.

    Inference comes first, and pays for what both share.

    Returns:
        For each mode: seconds of the ``first`` call, of the ``later`` ones and of the dearest call at a ``new_size``.
    """
    with torch_settings(device, tf32=tf32):
        return {mode: _time_mode(device, dtype, mode, map_sizes, contestant) for mode in _INSTANCES}


def _time_mode(device, dtype, mode, map_sizes, contestant):
    cases = [
        KPNetCase("FCPose", CHANNELS["FCPose"], _INSTANCES[mode], mode == "training", map_size, dtype)
        for map_size in map_sizes
    ]
    clock = make_wall_clock(device)
    calls = [partial(case.run, contestant, case.make_inputs(device, 0)) for case in cases]
    first, _ = clock(calls[0])
    later = statistics.median(clock(calls[0])[0] for _ in range(5))
    return {"first": first, "later": later, "new_size": max(clock(call)[0] for call in calls[1:])}
