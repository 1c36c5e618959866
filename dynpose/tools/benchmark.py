"""Measure dynpose's operators on this machine.

    dynpose benchmark kp-net [--device cuda] [--threads 2] [--markdown]

kp-net compares the KP-Net operator with the usual way to run a generated network, a convolution with one group for each
person (F.conv2d(..., groups=N)) on the feature map repeated N times, with the coordinates appended. The peaks are the
value, the index and the softmax confidence of each heatmap's highest cell; training is the cross-entropy of the
heatmaps, forward and backward.

Time: the median over --repeats rounds after one round to warm up. A round runs both, one after the other, so that other
work on the machine slows both.

Memory: what is held at the peak of one call beyond the inputs, after one call to warm up. On a GPU it is the rise of
torch.cuda.max_memory_allocated. On a CPU, which has no such counter, each of the two runs in a process of its own, and
it is the rise of that process's highest resident memory (VmHWM of /proc; left empty where there is none).
"""

import multiprocessing
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

NAME = "benchmark"
HELP = "time an operator against the usual way to compute it"

# P3 of an image of 800 x 1333 pixels
_MAP_SIZE = (100, 167)
_STRIDE = 8


class _Case(NamedTuple):
    name: str
    channels: int  # of the features and of the hidden layers
    num_instances: int
    training: bool = False
    map_size: tuple = _MAP_SIZE

    def spec(self):
        from dynpose.layers import KPNetSpec

        return KPNetSpec(in_channels=self.channels, width=self.channels, depth=3, num_keypoints=17)


_KP_NET_CASES = (
    _Case("FCPose peaks", 32, 1),
    _Case("FCPose peaks", 32, 10),
    _Case("FCPose peaks", 32, 100),
    _Case("InsPose peaks", 8, 500),
    _Case("FCPose training", 32, 50, training=True),
)


def add_arguments(parser):
    """Declare the arguments of the subcommand."""
    parser.add_argument("target", choices=["kp-net"], help="what to measure")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--backend", default="auto", help="of the operator, default %(default)s")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that are timed, default %(default)s")
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")


def run(args):
    """Measure and print a table."""
    import torch
    from tabulate import tabulate

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    print(_header(device, args), "\n", sep="")
    rows = [_measure(case, device, args.backend, args.repeats) for case in _KP_NET_CASES]
    headers = ("case", "N", "C x H x W", "grouped, ms", "kp_net, ms", "ratio", "grouped, MiB", "kp_net, MiB")
    print(tabulate(rows, headers, tablefmt="github" if args.markdown else "simple", floatfmt=".1f"))


def _header(device, args):
    import torch

    import dynpose

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return (
        f"dynpose {dynpose.__version__}, torch {torch.__version__}, {name}, {torch.get_num_threads()} CPU threads, "
        f"float32, backend {args.backend}, median of {args.repeats}"
    )


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _measure(case, device, backend, repeats):
    """One row of the table."""
    calls = {name: _prepare(name, case, device, backend) for name in _CONTESTANTS}
    _check_agreement(*(call() for call in calls.values()))
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(_time(call, device))
    grouped, operator = (1000 * statistics.median(times[name]) for name in _CONTESTANTS)
    del calls
    memory = [_memory(name, case, device, backend) for name in _CONTESTANTS]
    shape = " x ".join(map(str, (case.channels, *case.map_size)))
    return case.name, case.num_instances, shape, grouped, operator, grouped / operator, *memory


def _time(call, device):
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _check_agreement(grouped, operator):
    """The two compute the same numbers, or the comparison means nothing."""
    import torch

    scale = grouped.abs().max().item()
    torch.testing.assert_close(operator, grouped, rtol=1e-3, atol=1e-4 * scale)


def _memory(name, case, device, backend):
    """MiB that one call holds at its peak beyond its inputs; None where that can't be measured."""
    import torch

    if device.type == "cuda":
        return _memory_cuda(name, case, device, backend)
    # In the new process, freed tensors go back to the system at once, so that they count when allocated again.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_memory_cpu, (name, case, device, backend, torch.get_num_threads()))
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"]


def _memory_cuda(name, case, device, backend):
    import torch

    call = _prepare(name, case, device, backend)
    call()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _memory_cpu(name, case, device, backend, threads):
    import torch

    torch.set_num_threads(threads)
    call = _prepare(name, case, device, backend)
    call()
    try:
        # proc(5): the highest resident memory starts again from the present one
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _highest_resident_memory()
    call()
    return (_highest_resident_memory() - before) / 2**20


def _highest_resident_memory():
    # Not getrusage: on Linux its ru_maxrss begins with that of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def _prepare(name, case, device, backend):
    """Make the inputs of a case.

    Returns:
        A function without arguments that runs the contestant once and gives the peaks' values or the losses, (N, K).
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    spec, n, (height, width) = case.spec(), case.num_instances, case.map_size
    features = torch.randn(1, case.channels, height, width, generator=generator)
    params = torch.randn(n, spec.num_params, generator=generator) * 0.1
    locations = torch.rand(n, 2, generator=generator) * torch.tensor([width, height]) * _STRIDE
    targets = torch.randint(height * width, (n, spec.num_keypoints), generator=generator)
    image_index, coord_scale = torch.zeros(n, dtype=torch.int64), torch.full((n,), 64.0)
    features, params, image_index, locations, coord_scale, targets = (
        x.to(device) for x in (features, params, image_index, locations, coord_scale, targets)
    )
    inputs = (features, params, image_index, locations, coord_scale, spec, _STRIDE)
    peaks, losses = _CONTESTANTS[name]
    if not case.training:
        return lambda: peaks(inputs, backend)

    leaves = (features.requires_grad_(), params.requires_grad_())

    def step():
        result = losses(inputs, targets, backend)
        torch.autograd.grad(result.sum(), leaves)
        return result.detach()

    return step


def _operator_peaks(inputs, backend):
    from dynpose.layers import kp_net_peaks

    return kp_net_peaks(*inputs, backend=backend).values


def _operator_losses(inputs, targets, backend):
    from dynpose.layers import kp_net_cross_entropy

    return kp_net_cross_entropy(*inputs, targets, backend=backend)


def _grouped_heatmaps(inputs):
    """Logits (N, K, H * W) by convolutions with one group for each instance; all instances are in image 0."""
    import torch
    import torch.nn.functional as F

    features, params, _, locations, coord_scale, spec, stride = inputs
    n, (height, width) = len(params), features.shape[2:]
    cells = torch.stack(
        [
            torch.arange(width, device=features.device).expand(height, width),
            torch.arange(height, device=features.device)[:, None].expand(height, width),
        ]
    )
    offsets = (cells * stride + stride // 2) - locations[:, :, None, None]
    relative = spec.coords_sign * offsets / coord_scale[:, None, None, None]
    maps = torch.cat([relative, features.expand(n, -1, -1, -1)], dim=1).view(1, -1, height, width)
    for layer, (weight, bias) in enumerate(spec.unpack(params)):
        maps = F.relu(maps) if layer > 0 else maps
        maps = F.conv2d(maps, weight.flatten(0, 1)[:, :, None, None], bias.flatten(), groups=n)
    return maps.view(n, spec.num_keypoints, height * width)


def _grouped_peaks(inputs, backend):
    import torch

    with torch.no_grad():
        heatmaps = _grouped_heatmaps(inputs)
        values, _ = heatmaps.max(dim=2)
        # the confidence, which is part of what is timed
        (values - heatmaps.logsumexp(dim=2)).exp()
    return values


def _grouped_losses(inputs, targets, backend):
    import torch.nn.functional as F

    heatmaps = _grouped_heatmaps(inputs)
    return F.cross_entropy(heatmaps.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


# name -> (peaks, losses), in the order of the table
_CONTESTANTS = {
    "grouped": (_grouped_peaks, _grouped_losses),
    "kp_net": (_operator_peaks, _operator_losses),
}
