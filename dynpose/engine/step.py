"""The training step, from a batch of images to updated weights."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from .accumulation import split_batch, synchronised
from .precision import Precision


class StepGuard(Protocol):
    """Decides whether a training step is skipped.

    All processes call both methods at the same time, and must get the same answer. If one returns False, the step is
    skipped: weights, optimizer and metrics are unchanged, and the next step uses the next batch.
    """

    def check_losses(self, loss_dict: dict[str, torch.Tensor], batch: list[dict[str, Any]]) -> bool:
        """Check the losses of each micro-batch before its backward pass; ``batch`` holds its images."""

    def check_gradients(self, model: nn.Module) -> bool:
        """Check the gradients of the whole batch, unscaled and synchronised, before the optimizer's step.

        In float16 it is not called while the scaler can still lower its scale, since the scaler finds its scale by
        overflows of scaled gradients.
        """


class TrainingStep(SimpleTrainer):
    """detectron2's SimpleTrainer and AMPTrainer in one, with gradient accumulation and a guard.

    In float32, without accumulation and a guard, it equals SimpleTrainer bit for bit. It writes the same metrics; for
    an accumulated batch, the micro-batches' losses are averaged over its images.

    The iterator of the data loader is created at the first step, so that the loader's start can be set before.

    Args:
        model (nn.Module): maps a batch to a dict of scalar losses, or to one loss.
        data_loader (Iterable[list]): the batches of this process. In every iteration, the batches of all processes must
            have the same number of images.
        optimizer (torch.optim.Optimizer)
        precision (Precision): of the forward pass; for float16 gradients are scaled.
        ims_per_pass (int): maximum number of images in a forward and backward pass; 0 = the whole batch.
        guard (StepGuard | None): skips steps with invalid losses or gradients; None = a non-finite loss ends the
            training with a FloatingPointError, as in detectron2.

    Attributes:
        grad_scaler (torch.amp.GradScaler): disabled unless the precision is float16.
        guard: may be set later.

    Example::

        >>> step = TrainingStep(model, loader, optimizer, precision=Precision("cuda", torch.bfloat16), ims_per_pass=4)
        >>> step.train(start_iter=0, max_iter=90000)
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision | None = None,
        ims_per_pass: int = 0,
        guard: StepGuard | None = None,
    ):
        # an iterator created here, as in detectron2 0.6, would fix the first batch too early
        super().__init__(model, (), optimizer)
        self.data_loader = data_loader
        self._batches: Iterator[list[dict[str, Any]]] | None = None
        self.precision = precision or Precision()
        self.grad_scaler = self.precision.grad_scaler()
        self.ims_per_pass = ims_per_pass
        self.guard = guard

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[list[dict[str, Any]]]]) -> None:
        """Use another data loader from the next step on.

        Args:
            data_loader_builder (Callable[[], Iterable])
        """
        self.data_loader, self._batches = data_loader_builder(), None

    def run_step(self) -> None:
        """Process one batch: losses and gradients of its micro-batches, metrics, and the optimizer's step.

        Raises:
            FloatingPointError: a loss is not finite, and there is no guard.
        """
        assert self.model.training, "[TrainingStep] model was changed to eval mode!"
        start = time.perf_counter()
        if self._batches is None:
            self._batches = iter(self.data_loader)
        batch = next(self._batches)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        losses = self._accumulate(batch)
        if losses is None:
            self.optimizer.zero_grad()
            return
        if hasattr(self, "after_backward"):  # hooks of detectron2's main branch
            self.after_backward()
        self._write_metrics(losses, data_time)
        self._update()

    def _accumulate(self, batch):
        """Sum the gradients of the micro-batches; return the batch's losses, or None if the guard refuses them."""
        pieces = split_batch(batch, self.ims_per_pass)
        mean = defaultdict(float)
        for i, (micro_batch, share) in enumerate(pieces, start=1):
            with synchronised(self.model, is_last=i == len(pieces)):
                with self.precision.autocast():
                    losses = self.model(micro_batch)
                    if isinstance(losses, torch.Tensor):
                        losses = {"total_loss": losses}
                    total = sum(losses.values())
                if self.guard is not None and not self.guard.check_losses(losses, micro_batch):
                    return None
                self.grad_scaler.scale(total * share).backward()
            for name, loss in losses.items():
                mean[name] += loss.detach() * share
        return dict(mean)

    def _update(self):
        """Step the optimizer, unless the scaler or the guard skips the step because of non-finite gradients."""
        scaler = self.grad_scaler
        if self.guard is not None:
            scaler.unscale_(self.optimizer)
            is_guards = not scaler.is_enabled() or scaler.get_scale() <= 1
            if is_guards and not self.guard.check_gradients(self.model):
                self.optimizer.zero_grad()
                scaler.update()
                return
        scaler.step(self.optimizer)
        scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """SimpleTrainer's state, which includes the optimizer's, and for float16 the scaler's."""
        state = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load :meth:`state_dict`. The scaler is reset if the state is of a run in another precision."""
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
