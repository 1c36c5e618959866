"""A detectron2 checkpointer that knows whose weights it reads."""

import logging
import os

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .imagenet import convert_imagenet, detect_imagenet, find_backbone
from .reading import UnsafeCheckpointError, read_checkpoint
from .released import convert_released, detect_released

logger = logging.getLogger(__name__)

# Buffers that are learned; the others of a network are constants
_STATISTICS = ("running_mean", "running_var")


class CheckpointError(ValueError):
    """Weights that do not fit the model; the message names the file and what to do."""


class PoseCheckpointer(DetectionCheckpointer):
    """Reads dynpose's checkpoints, the authors' released ones, and whatever detectron2 reads.

    - Released weights (recognised by their keys) are renamed in memory. They must fit completely.
    - A dynpose checkpoint says which method and which keypoints it is of. Another method's is refused. One with other
      keypoints is refused too, unless ``new_keypoints`` allows to fine-tune it: then the layers whose shape depends on
      the keypoints start afresh, and the log names them.
    - ImageNet weights of HRNet, DLA and Swin, from their original releases or timm (.pth or .safetensors), are renamed
      too. They must fill the whole backbone.
    - Anything else, such as a ResNet's ImageNet weights, is left to detectron2, as long as something of it fits.
    - Nothing in a file is run, unless the user trusts it; see :mod:`dynpose.checkpoint.reading`.

    Args:
        model (nn.Module): a dynpose model (or any detectron2 model).
        save_dir (str): where to save.
        new_keypoints (bool): allow a checkpoint of the same method with other keypoints.
        complete (bool): take only weights that fill the whole model, to evaluate it or to predict with it: what would
            be a start for training finds noise.
        **kwargs: of detectron2's DetectionCheckpointer.

    Example::

        >>> PoseCheckpointer(model).load("R_50_3X.pth")
    """

    def __init__(self, model, save_dir="", *, new_keypoints=False, complete=False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self.new_keypoints = new_keypoints
        self.complete = complete
        self._path = ""

    def save(self, name, **kwargs):
        """Save like detectron2, with a note of the method and its keypoints."""
        super().save(name, dynpose=self._description(), **kwargs)

    def load(self, path, *args, **kwargs):
        """Load like detectron2.

        Raises:
            CheckpointError: the file is missing or can't be read, or its weights do not fit the model.
        """
        if path and "://" not in path and not os.path.isfile(path):
            raise CheckpointError(f"{path}: no such file; give the weights of a trained model as MODEL.WEIGHTS")
        self._path = path
        return super().load(path, *args, **kwargs)

    def _description(self):
        schema = getattr(self.model, "schema", None)
        return {"method": type(self.model).__name__, "keypoints": list(schema.names) if schema else []}

    def _load_file(self, filename):
        try:
            checkpoint = read_checkpoint(filename)
        except UnsafeCheckpointError as error:
            raise CheckpointError(f"{filename}: {error}") from error
        except Exception as error:
            raise CheckpointError(
                f"{filename}: can't be read as a checkpoint ({type(error).__name__}: {error}). It may be truncated or "
                "no checkpoint at all; copy it again or give another MODEL.WEIGHTS"
            ) from error
        if fault := _find_fault(checkpoint["model"]):
            raise CheckpointError(
                f"{filename}: {fault}, where a checkpoint has named tensors, by themselves or as 'model' or "
                "'state_dict'; give another MODEL.WEIGHTS"
            )
        return checkpoint

    def _load_model(self, checkpoint):
        keys = list(checkpoint["model"])
        self._rename(checkpoint)
        theirs, ours = checkpoint.get("dynpose"), self._description()
        if theirs is not None:
            self._check_method(theirs["method"], "dynpose's")
            if theirs["keypoints"] != ours["keypoints"]:
                self._check_new_keypoints(theirs["keypoints"], ours["keypoints"])
        incompatible = super()._load_model(checkpoint)
        if theirs is not None:
            self._check_shapes(incompatible.incorrect_shapes, same_keypoints=theirs["keypoints"] == ours["keypoints"])
        self._check_use(keys, incompatible)
        return incompatible

    def _rename(self, checkpoint):
        """Give released and ImageNet weights the model's names, in place."""
        released = detect_released(checkpoint["model"])
        if released is not None:
            self._check_method(released.method, released.name)
            checkpoint["model"] = self._convert(checkpoint["model"], released)
        elif (imagenet := detect_imagenet(checkpoint["model"])) is not None:
            checkpoint["model"] = self._convert_imagenet(checkpoint["model"], imagenet)
        elif checkpoint.get("matching_heuristics") and find_backbone(self.model):
            raise CheckpointError(
                f"{self._path}: these are not weights of {self._backbone_name()}, the model's backbone; give its "
                "ImageNet weights as MODEL.WEIGHTS, or '' to start from none"
            )

    def _check_shapes(self, misfits, same_keypoints):
        """Refuse parameters of another shape, unless the keypoints explain it; ``misfits`` as fvcore gives them."""
        fresh = [key for key, *_ in misfits]
        if fresh and same_keypoints:
            raise CheckpointError(
                f"{self._path}: {len(fresh)} parameters have another shape than in the model ({_few(fresh, 4)}). It "
                "was trained with another config; use the config.yaml of its run"
            )
        if fresh:
            logger.warning(f"Other keypoints than in {self._path}: initialised afresh: {', '.join(fresh)}")

    def _check_use(self, keys, incompatible):
        """Refuse weights of which nothing was taken over or, where they must be complete, not all that is learned."""
        state = self.model.state_dict(keep_vars=True)
        parameters = [key for key, value in state.items() if isinstance(value, nn.Parameter)]
        if parameters and set(parameters).issubset(incompatible.missing_keys):
            names = "the names of its release or of timm" if find_backbone(self.model) else "detectron2's names"
            shapes = [
                f"{key} {tuple(theirs)}, not {tuple(ours)}" for key, theirs, ours in incompatible.incorrect_shapes
            ]
            raise CheckpointError(
                f"{self._path}: nothing of it fits the model: it holds other parameters ({_few(shapes or keys)}) than "
                f"{self._description()['method']} ({_few(parameters)}). Give weights of this model, or ImageNet "
                f"weights of its backbone, {self._backbone_name()}, with {names} and no other prefix than 'module.'"
            )
        if not self.complete:
            return
        learned = {*parameters, *(key for key in state if key.endswith(_STATISTICS))}
        missing = [key for key in incompatible.missing_keys if key in learned]
        if missing:
            raise CheckpointError(
                f"{self._path}: {len(missing)} parameters of the model are not in it or of another shape "
                f"({_few(missing)}). These are a backbone's weights, or those of another config; give the weights of a "
                "trained model, and the config.yaml of its run"
            )

    def _check_method(self, method, origin):
        ours = self._description()["method"]
        if method != ours:
            raise CheckpointError(
                f"{self._path}: these are {origin} weights of {method}, but the model is {ours}. "
                f"Give weights of {ours}, or a config of {method}"
            )

    def _check_new_keypoints(self, theirs, ours):
        if not self.new_keypoints:
            raise CheckpointError(
                f"{self._path}: the checkpoint has {len(theirs)} keypoints ({', '.join(theirs[:3])}, ...), the model "
                f"{len(ours)} ({', '.join(ours[:3])}, ...). Evaluate and predict with the config.yaml of its run; to "
                "learn other keypoints, train with these MODEL.WEIGHTS"
            )
        if len(theirs) == len(ours):
            logger.warning(f"{self._path}: as many keypoints as the model, but other names; all layers are taken over")

    def _backbone_name(self):
        backbone = getattr(self.model, "backbone", self.model)
        return type(getattr(backbone, "bottom_up", backbone)).__name__

    def _convert_imagenet(self, state_dict, imagenet):
        """Rename a backbone's ImageNet weights, report, and refuse them unless they fill it."""
        found = find_backbone(self.model, (imagenet.backbone,))
        if found is None:
            raise CheckpointError(
                f"{self._path}: these are ImageNet weights of {imagenet.backbone}, but the model's backbone is "
                f"{self._backbone_name()}. Give weights of that, or a config with MODEL.BACKBONE.NAME of "
                f"{imagenet.backbone}"
            )
        report = convert_imagenet(state_dict, imagenet, *found)
        unused = [f"{len(keys)} ({meaning})" for meaning, keys in sorted(report.unused.items())]
        logger.info(
            f"{self._path}: {imagenet.name} ImageNet weights, {len(report.converted)} parameters converted; unused "
            f"{', '.join(unused) or 0}; {len(report.unknown)} unknown {report.unknown}; {len(report.missing)} missing "
            f"{report.missing}; {len(report.misfits)} of another shape {report.misfits}"
        )
        if not report.fits:
            raise CheckpointError(
                f"{self._path}: {imagenet.name} ImageNet weights do not fit this backbone: {len(report.missing)} "
                f"parameters missing {report.missing[:3]}, {len(report.unknown)} unknown {report.unknown[:3]}, "
                f"{len(report.misfits)} of another shape {report.misfits[:3]}. They are of another size of "
                f"{imagenet.backbone}, or incomplete; see the keys of MODEL.{imagenet.backbone.upper()}"
            )
        for reason, keys in report.lacking.items():
            logger.warning(f"{self._path}: {reason}: {len(keys)} parameters initialised afresh: {', '.join(keys)}")
        if report.resized:
            logger.warning(
                f"{self._path}: {len(report.resized)} relative-position tables of another window interpolated; set "
                "MODEL.SWIN.WINDOW_SIZE (12 for weights trained at 384 pixels) to take them over as they are"
            )
        return report.converted

    def _convert(self, state_dict, released):
        """Rename released weights, report, and refuse them unless they fit completely."""
        converted, unknown = convert_released(state_dict, released)
        state = self.model.state_dict()
        expected = {key: tuple(value.shape) for key, value in state.items() if "num_batches_tracked" not in key}
        missing = sorted(expected.keys() - converted.keys())
        unused = sorted([*unknown, *(key for key in converted if key not in state)])
        misfits = [
            f"{key} {tuple(converted[key].shape)} instead of {shape}"
            for key, shape in expected.items()
            if key in converted and tuple(converted[key].shape) != shape
        ]
        logger.info(
            f"{self._path}: {released.name} weights, {len(converted)} parameters converted; {len(unused)} unused "
            f"{unused}; {len(missing)} missing {missing}; {len(misfits)} of another shape {misfits}"
        )
        if missing or misfits or unused:
            raise CheckpointError(
                f"{self._path}: {released.name} weights do not fit this model: {len(missing)} parameters missing "
                f"{missing[:3]}, {len(unused)} unused {unused[:3]}, {len(misfits)} of another shape {misfits[:3]}. "
                f"They load into {released.config}. To fine-tune them on other keypoints, convert them first with "
                "'dynpose convert-weights' and train from the converted file"
            )
        return converted


def _find_fault(weights):
    """Say what is wrong with something that should be a state dict; "" where it is one."""
    if not isinstance(weights, dict):
        return f"it holds a {type(weights).__name__}"
    wrong = [
        f"{key!r}, a {type(value).__name__}"
        for key, value in weights.items()
        if not isinstance(key, str) or not isinstance(value, (torch.Tensor, np.ndarray))
    ]
    if wrong:
        return f"it holds {_few(wrong)}"
    return "" if weights else "it holds no weights"


def _few(names, number=3):
    """The first names of a list that may be long."""
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")
