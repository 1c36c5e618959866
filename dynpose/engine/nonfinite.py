"""The guard against non-finite losses and gradients: it reports them, saves a reproducible case and skips the step."""

import logging
import os
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn

from dynpose.checkpoint import CheckpointError
from dynpose.checkpoint.writing import write_checkpoint
from dynpose.config import ConfigError
from dynpose.utils.distributed import unwrap_ddp
from dynpose.utils.random_state import preserved_rng, rng_state, set_rng_state

logger = logging.getLogger(__name__)

# Names in a message, and cases kept on disk per run
_MAX_NAMES, _MAX_SAVED = 8, 5


class NonFiniteError(FloatingPointError):
    """Too many consecutive steps had non-finite losses or gradients."""


class NonFiniteGuard(HookBase):
    """Makes a :class:`~dynpose.engine.step.TrainingStep` skip steps that would corrupt the weights.

    All processes skip a step if a loss or a gradient of one of them is not finite. The model is then as before the
    step, including the running statistics of batch normalisation. The log names the loss terms or the parameters, the
    images and the iteration, and ``<output_dir>/nonfinite`` gets the inputs of :func:`replay`: for each process with
    non-finite numbers its images and random generators, and the weights. The first five cases of a run are kept.

    Args:
        model (nn.Module): the trained model, wrapped in DistributedDataParallel or not.
        output_dir (str): of the run.
        max_in_a_row (int): maximum number of consecutive skipped steps; one more ends the training.

    Raises:
        ConfigError: ``max_in_a_row`` is negative.

    Example::

        >>> step = TrainingStep(model, loader, optimizer, guard=NonFiniteGuard(model, "output", 10))
        >>> step.register_hooks([step.guard])
    """

    def __init__(self, model: nn.Module, output_dir: str, max_in_a_row: int):
        if max_in_a_row < 0:
            raise ConfigError(f"SOLVER.MAX_NONFINITE_STEPS must be a number of steps, 0 or more, got {max_in_a_row}")
        self.model = unwrap_ddp(model)
        self.folder = os.path.join(output_dir, "nonfinite")
        self.max_in_a_row = max_in_a_row
        self.in_a_row = self.total = 0
        self._was_refused = False
        self._buffers_before: list[torch.Tensor] = []
        self._images: list[dict[str, Any]] = []
        self._losses: dict[str, torch.Tensor] = {}

    def before_step(self) -> None:
        """Record the state before the step."""
        if not self._was_refused:
            self.in_a_row = 0
        self._was_refused = False
        self._images, self._losses = [], {}
        self._rng = rng_state()
        buffers = list(self.model.buffers())
        if [buffer.shape for buffer in buffers] != [buffer.shape for buffer in self._buffers_before]:
            self._buffers_before = [buffer.clone() for buffer in buffers]
        if buffers:
            torch._foreach_copy_(self._buffers_before, buffers)

    def check_losses(self, loss_dict: dict[str, torch.Tensor], batch: list[dict[str, Any]]) -> bool:
        """Whether the losses of all processes are finite.

        Args:
            loss_dict (dict[str, Tensor]): scalars.
            batch (list[dict]): their images.

        Returns:
            bool

        Raises:
            NonFiniteError: they are not, and too many consecutive steps have been skipped.
        """
        self._images += batch
        self._losses = {name: loss.detach() for name, loss in loss_dict.items()}
        finite = torch.stack([loss.float() for loss in self._losses.values()]).isfinite()
        if _everywhere(finite.all()):
            return True
        names = [name for name, is_finite in zip(self._losses, finite.tolist()) if not is_finite]
        return self._refuse("losses", [f"{name} = {self._losses[name].item()}" for name in names])

    def check_gradients(self, model: nn.Module) -> bool:
        """Whether the gradients of all processes are finite.

        Args:
            model (nn.Module): after the backward pass.

        Returns:
            bool

        Raises:
            NonFiniteError: they are not, and too many consecutive steps have been skipped.
        """
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if not named:
            return True
        gradients = list(named.values())
        # norms are three times as fast as maxima on a CPU, but squares of large values overflow
        if _everywhere(torch.stack(torch._foreach_norm(gradients)).isfinite().all()):
            return True
        finite = torch.stack(torch._foreach_norm(gradients, float("inf"))).isfinite()
        if _everywhere(finite.all()):
            return True
        names = [name.removeprefix("module.") for name, ok in zip(named, finite.tolist()) if not ok]
        return self._refuse("gradients", names)

    def state_dict(self) -> dict[str, int | bool]:
        """The number of consecutive skipped steps, for a resumed run."""
        return {"in_a_row": self.in_a_row, "was_refused": self._was_refused, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, int | bool]) -> None:
        """Load :meth:`state_dict`."""
        self.in_a_row, self._was_refused = state_dict["in_a_row"], bool(state_dict["was_refused"])
        self.total = state_dict["total"]

    def _refuse(self, what, names):
        """Report, save and undo the step, and return False; all processes call it together."""
        if self._buffers_before:
            torch._foreach_copy_(list(self.model.buffers()), self._buffers_before)
        self._was_refused = True
        self.in_a_row, self.total = self.in_a_row + 1, self.total + 1
        storage = get_event_storage()
        storage.put_scalar("nonfinite_steps", self.total, smoothing_hint=False)
        path = self._save(storage.iter, what, names) if names and self.total <= _MAX_SAVED else None
        found = comm.all_gather({"names": names, "images": self._files(), "path": path} if names else None)
        found = {rank: one for rank, one in enumerate(found) if one is not None}
        message = "; ".join(_describe(rank, one) for rank, one in found.items())
        message = f"iteration {storage.iter}: {what} that are not finite: {message}"
        if self.in_a_row > self.max_in_a_row:
            raise NonFiniteError(
                f"{message}. These were {self.in_a_row} steps in a row, more than SOLVER.MAX_NONFINITE_STEPS "
                f"({self.max_in_a_row}). dynpose.engine.replay recomputes them; a lower SOLVER.BASE_LR, more "
                "SOLVER.WARMUP_ITERS, SOLVER.CLIP_GRADIENTS or, for float16, SOLVER.AMP.DTYPE 'bfloat16' may help"
            )
        logger.warning(f"{message}. The step is skipped ({self.in_a_row} in a row)")
        return False

    def _files(self):
        return [str(image.get("file_name", image.get("image_id", "?"))) for image in self._images]

    def _save(self, iteration, what, names):
        path = os.path.join(self.folder, f"iteration_{iteration:07d}_rank{comm.get_rank()}.pth")
        case = {
            "iteration": iteration,
            "what": what,
            "names": names,
            "losses": self._losses,
            "batch": [{key: _to_plain(value) for key, value in image.items()} for image in self._images],
            "model": self.model.state_dict(),
            "rng": self._rng,
        }
        try:
            os.makedirs(self.folder, exist_ok=True)
            write_checkpoint(path, case)
        except (OSError, CheckpointError) as error:  # a full disk must not end the run
            logger.warning(f"The case is not saved: {error}")
            return None
        return path


def _everywhere(flag):
    """Whether a flag of one element is true in all processes."""
    if comm.get_world_size() > 1:
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag.item())


def _describe(rank, one):
    names = ", ".join(one["names"][:_MAX_NAMES]) + (", ..." if len(one["names"]) > _MAX_NAMES else "")
    saved = f" (saved: {one['path']})" if one["path"] else ""
    process = f"process {rank}, " if comm.get_world_size() > 1 else ""
    return f"{process}{names}, with images {', '.join(one['images'])}{saved}"


def replay(model: nn.Module, path: str) -> dict[str, torch.Tensor]:
    """Recompute the losses of a step that the guard skipped.

    Args:
        model (nn.Module): built from the run's config, in training mode; the weights of the step are loaded into it.
        path (str): a file of ``nonfinite/``.

    Returns:
        dict[str, Tensor]: the losses, with their graph. Without accumulation and AMP, those of the step, bit-identical
        on the CPU.

    Example::

        >>> model = PoseTrainer.build_model(cfg).train()
        >>> with torch.autograd.detect_anomaly():
        ...     losses = replay(model, "output/nonfinite/iteration_0001234_rank0.pth")
        ...     sum(losses.values()).backward()
    """
    case = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(case["model"])
    batch = [{key: _from_plain(value) for key, value in image.items()} for image in case["batch"]]
    with preserved_rng():
        set_rng_state(case["rng"])
        return model(batch)


def _to_plain(value):
    """detectron2's structures as dicts of tensors, which ``torch.load`` reads with ``weights_only``."""
    if isinstance(value, Instances):
        fields = {name: _to_plain(field) for name, field in value.get_fields().items()}
        return {"instances_of": list(value.image_size), "fields": fields}
    if isinstance(value, (Boxes, Keypoints)):
        return {"kind": type(value).__name__, "tensor": value.tensor}
    return value if isinstance(value, (torch.Tensor, str, int, float, bool, type(None))) else str(value)


def _from_plain(value):
    if isinstance(value, dict) and "instances_of" in value:
        instances = Instances(tuple(value["instances_of"]))
        for name, field in value["fields"].items():
            instances.set(name, _from_plain(field))
        return instances
    if isinstance(value, dict):
        return {"Boxes": Boxes, "Keypoints": Keypoints}[value["kind"]](value["tensor"])
    return value
