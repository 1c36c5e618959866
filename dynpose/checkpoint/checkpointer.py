"""A detectron2 checkpointer that recognises the method, keypoints and classes of the weights it reads."""

import logging
import os
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from dynpose.data.schema import COCO_PERSON, CROWDPOSE_PERSON, match_keypoints
from dynpose.methods import registered_methods
from dynpose.utils.atomic import AtomicPathManager

from .carrying import carry_rows, fits
from .errors import CheckpointError
from .imagenet import convert_imagenet, detect_imagenet, find_backbone
from .published import check_name, locate_weights
from .reading import load_checkpoint
from .released import compare_shapes, convert_released, detect_released
from .writing import write_checkpoint

logger = logging.getLogger(__name__)

# Buffers that are learned; all other buffers are constants
_STATISTICS = ("running_mean", "running_var")


class PoseCheckpointer(DetectionCheckpointer):
    """Reads dynpose's checkpoints, the authors' released ones, and all formats that detectron2 reads.

    - Released weights (recognised by their keys) are renamed in memory. They must fit completely, except for keypoints
      other than COCO's or CrowdPose's if ``new_keypoints`` allows them.
    - A dynpose checkpoint stores its method, keypoints and classes. A checkpoint of another method is refused.
    - The same keypoints or classes in another order are put in the model's order.
    - Other keypoints are refused, unless ``new_keypoints`` allows fine-tuning: the weights of keypoints with a common
      name are then transferred, and the others are initialised; the log names both. The same number of keypoints
      without a common name are treated as the same keypoints, renamed. Classes are handled in the same way;
      ``complete`` refuses other classes.
    - ImageNet weights of HRNet, DLA and Swin, from their original releases or timm (.pth or .safetensors), and those of
      a timm network selected by name are renamed too. They must fill the whole backbone.
    - Any other weights, such as a ResNet's ImageNet weights, are left to detectron2, if at least a part of them fits.
    - Published weights are found by name and downloaded once; see :mod:`dynpose.checkpoint.published`.
    - No code in a file is run, unless the user trusts it; see :mod:`dynpose.checkpoint.reading`.

    Args:
        model (nn.Module): a dynpose model (or any detectron2 model).
        save_dir (str): output folder.
        new_keypoints (bool): allow a checkpoint of the same method with other keypoints.
        complete (bool): accept only weights that fill the whole model, for evaluation or prediction: a partly
            initialised model, a valid start for training, predicts noise.
        class_names (Sequence[str] | None): names of the model's classes, in order; empty = unknown. None = the model's
            ``class_names``, if it has any.
        **kwargs: passed to detectron2's DetectionCheckpointer.

    Example::

        >>> PoseCheckpointer(model).load("R_50_3X.pth")
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        new_keypoints: bool = False,
        complete: bool = False,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, save_dir, **kwargs)
        self.path_manager: AtomicPathManager = AtomicPathManager(self.path_manager)
        self.new_keypoints = new_keypoints
        self.complete = complete
        self.class_names = list(getattr(self.model, "class_names", ()) if class_names is None else class_names)
        self._path = ""
        self._resumes = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Save like detectron2, with a note of the method, its keypoints and classes.

        Args:
            name (str): file name without ``.pth``.
            **kwargs: further content of the file.

        Raises:
            CheckpointError: the file can't be written; an earlier one of that name is unchanged.
        """
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        if self._write(name, {**states, **kwargs}):
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save the weights, the note of :meth:`save` and ``kwargs``, without the training state.

        The file is not recorded as the last checkpoint, since no run resumes from it. Raises the errors of
        :meth:`save`.
        """
        self._write(name, kwargs)

    def _write(self, name, more):
        """Write ``<name>.pth``; return False if this process does not write."""
        if not self.save_dir or not self.save_to_disk:
            return False
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        content = {"model": self.model.state_dict(), **more, "dynpose": self._description()}
        write_checkpoint(path, content, self.path_manager.open)
        return True

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load like detectron2.

        Args:
            path (str): path of the weights, or the name or URL of published ones, see
                :func:`~dynpose.checkpoint.published.find_weights`; "" = none.
            checkpointables (list[str] | None): objects to load in addition to the model; None = all checkpointables.

        Raises:
            CheckpointError: the file is missing or can't be downloaded or read, or its weights do not fit the model.
        """
        weights = check_name(path)
        self._path = path
        with _naming_configs(path, weights):
            self._check_owner(weights)
        local = locate_weights(path)
        if local != path:
            self._path = f"{path} ({local})"
        if weights is None and "://" in path:
            self._download(path)
        self._resumes = checkpointables is None and bool(self.checkpointables)
        with _naming_configs(path, weights):
            return super().load(local, checkpointables)

    def _download(self, url):
        """Download a file to the local cache that loading reads."""
        try:
            # detectron2 interprets the part after "?" itself
            self.path_manager.get_local_path(url.partition("?")[0])
        except Exception as error:  # each type of address raises different errors
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"{url}: can't be downloaded ({reason}); check MODEL.WEIGHTS and the network, or give a file"
            ) from error

    def _description(self):
        schema = getattr(self.model, "schema", None)
        note = {
            "method": type(self.model).__name__,
            "keypoints": list(schema.names) if schema else [],
            "classes": self.class_names,
        }
        parts = getattr(self.model, "part_names", None)
        return note if parts is None else {**note, "parts": parts}

    def _load_file(self, filename):
        checkpoint = load_checkpoint(filename)
        if fault := _find_fault(checkpoint["model"]):
            raise CheckpointError(
                f"{filename}: {fault}, where a checkpoint has named tensors, by themselves or as 'model' or "
                "'state_dict'; give another MODEL.WEIGHTS"
            )
        return checkpoint

    def _load_model(self, checkpoint):
        keys = list(checkpoint["model"])
        theirs, ours = self._rename(checkpoint) or checkpoint.get("dynpose"), self._description()
        if theirs is not None:
            self._check_method(theirs["method"], "dynpose's")
            self._carry_keypoints(checkpoint["model"], theirs, ours)
            self._carry_classes(checkpoint["model"], theirs.get("classes", []), ours["classes"])
        incompatible = super()._load_model(checkpoint)
        if theirs is not None:
            self._check_shapes(incompatible.incorrect_shapes, same_keypoints=theirs["keypoints"] == ours["keypoints"])
        self._check_use(keys, incompatible)
        return incompatible

    def _rename(self, checkpoint):
        """Rename released and ImageNet weights to the model's names, in place.

        Returns:
            dict | None: the note of a dynpose checkpoint for released weights, if their keypoints are known and not
            treated as the model's.
        """
        released = detect_released(checkpoint["model"])
        if released is not None:
            self._check_method(released.method, released.name)
            self._check_expectations(released)
            checkpoint["model"], note = self._convert(checkpoint["model"], released)
            return note
        if (imagenet := detect_imagenet(checkpoint["model"], self.model)) is not None:
            checkpoint["model"] = self._convert_imagenet(checkpoint["model"], imagenet)
        elif checkpoint.get("matching_heuristics") and find_backbone(self.model):
            raise CheckpointError(
                f"{self._path}: these are not weights of {self._backbone_name()}, the model's backbone; give its "
                "ImageNet weights as MODEL.WEIGHTS, or '' to start from none"
            )
        return None

    def _check_shapes(self, misfits, same_keypoints):
        """Refuse parameters of another shape, unless the keypoints explain it; ``misfits`` are fvcore's."""
        fresh = [key for key, *_ in misfits]
        if fresh and same_keypoints:
            raise CheckpointError(
                f"{self._path}: {len(fresh)} parameters have another shape than in the model ({_few(fresh, 4)}). It "
                "was trained with another config; use the config.yaml of its run"
            )
        if fresh:
            logger.warning(f"Other keypoints than in {self._path}: initialised from scratch: {', '.join(fresh)}")

    def _check_use(self, keys, incompatible):
        """Refuse weights if none were loaded or, if they must be complete, if any learned values are missing."""
        state = self.model.state_dict(keep_vars=True)
        parameters = [key for key, value in state.items() if isinstance(value, nn.Parameter)]
        if parameters and set(parameters).issubset(incompatible.missing_keys):
            names = "the names of its release or of timm" if find_backbone(self.model) else "detectron2's names"
            shapes = [
                f"{key} {tuple(theirs)}, not {tuple(ours)}" for key, theirs, ours in incompatible.incorrect_shapes
            ]
            raise CheckpointError(
                f"{self._path}: none of its weights fit the model: it holds other parameters ({_few(shapes or keys)}) "
                f"than {self._description()['method']} ({_few(parameters)}). Give weights of this model, or ImageNet "
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

    def _check_owner(self, weights):
        """Refuse published weights of another method before they are downloaded."""
        for method in registered_methods() if weights else ():
            if weights in method.published_weights:
                self._check_method(method.name, "the published")

    def _check_expectations(self, released):
        """Check model settings that change the results of the same parameters, compared with the release."""
        for name, value, key in released.expects:
            if getattr(self.model, name, value) == value:
                continue
            message = f"{self._path}: {released.name} weights reproduce the authors' results only with {key}"
            if self.complete:
                raise CheckpointError(f"{message}; set it, or use {released.config}")
            logger.warning(f"{message}: training must learn the difference")

    def _carry_keypoints(self, weights, theirs, ours):
        """Rearrange weights of other keypoints, or of the same in another order, to the model's order, in place."""
        parts_differ = "parts" in theirs and "parts" in ours and theirs["parts"] != ours["parts"]
        if theirs["keypoints"] == ours["keypoints"] and not parts_differ:
            return
        reordered = sorted(theirs["keypoints"]) == sorted(ours["keypoints"])
        self._check_new_keypoints(theirs, ours, reordered)
        if not hasattr(self.model, "keypoint_rows"):
            return
        match = _match_names(ours["keypoints"], theirs["keypoints"], exactly=reordered)
        if len(theirs["keypoints"]) == len(ours["keypoints"]) and not any(index is not None for index in match):
            logger.warning(f"{self._path}: the model's number of keypoints under other names; all layers are loaded")
            return
        rows = self.model.keypoint_rows(ours), self.model.keypoint_rows(theirs)
        carried = carry_rows(weights, self.model.state_dict(), *rows, match)
        if self.complete and not carried.exact:
            raise CheckpointError(
                f"{self._path}: it has the model's keypoints in another order or in other parts, and its parameters do "
                f"not match them ({_few(carried.unknown or carried.changed)}). It was trained with another config; "
                "use the config.yaml of its run"
            )
        self._report("keypoints", ours["keypoints"], match, carried, reordered)

    def _check_new_keypoints(self, theirs, ours, reordered):
        """Refuse other keypoints if they can't be used; ``reordered``: they are the model's in another order."""
        names, our_names = theirs["keypoints"], ours["keypoints"]
        lists = (
            f"the checkpoint has {len(names)} keypoints ({', '.join(names[:3])}, ...), the model {len(our_names)} "
            f"({', '.join(our_names[:3])}, ...)"
        )
        if self._resumes:
            raise CheckpointError(
                f"{self._path}: {lists}. A run continues with the keypoints and parts that it started with, in their "
                "order; to learn others, train with these MODEL.WEIGHTS in another OUTPUT_DIR"
            )
        reason = getattr(self.model, "fixed_keypoint_order", "")
        if self.new_keypoints:
            if reason:
                logger.warning(f"{self._path}: {lists}: {reason}; let it name the same keypoints")
            return
        if not reordered:
            raise CheckpointError(
                f"{self._path}: {lists}. Evaluate and predict with the config.yaml of its run; to learn other "
                "keypoints, train with these MODEL.WEIGHTS"
            )
        if not reason and not hasattr(self.model, "keypoint_rows"):
            reason = "it does not map its parameters to keypoints"
        if not reason and "parts" in ours and "parts" not in theirs:
            reason = "the weights do not record the parts of the keypoints"
        if reason:
            raise CheckpointError(
                f"{self._path}: {lists}: the same in another order, in which {ours['method']} can't use them, since "
                f"{reason}. Evaluate and predict with the config.yaml of its run"
            )

    def _carry_classes(self, weights, theirs, ours):
        """Rearrange weights of other classes, or of the same in another order, to the model's order, in place."""
        if theirs == ours or not theirs or not ours:
            return
        reordered = sorted(theirs) == sorted(ours)
        lists = f"the checkpoint has the classes {', '.join(theirs)}, the model {', '.join(ours)}"
        if self._resumes:
            raise CheckpointError(
                f"{self._path}: {lists}. A run continues with the classes that it started with, in their order; to "
                "learn others, train with these MODEL.WEIGHTS in another OUTPUT_DIR"
            )
        if self.complete and not reordered:
            raise CheckpointError(
                f"{self._path}: {lists}. Evaluate and predict with the config.yaml of its run and data with its "
                "classes; to learn other classes, train with these MODEL.WEIGHTS"
            )
        match = _match_names(ours, theirs, exactly=True)
        if len(theirs) == len(ours) and not any(index is not None for index in match):
            logger.warning(f"{self._path}: {lists}: the same number under other names; all layers are loaded")
            return
        if not hasattr(self.model, "class_rows"):
            return
        rows = self.model.class_rows(len(ours)), self.model.class_rows(len(theirs))
        self._report("classes", ours, match, carry_rows(weights, self.model.state_dict(), *rows, match), reordered)

    def _report(self, kind, names, match, carried, reordered):
        """Log the transferred keypoints or classes."""
        if carried.exact and reordered:
            logger.info(f"{self._path}: the same {kind} in another order, put in the model's: {', '.join(names)}")
            return
        if carried.unknown:
            logger.warning(
                f"{self._path}: trained with another config: these can't be transferred by name: "
                f"{', '.join(carried.unknown)}"
            )
        if carried.changed:
            known = [name for name, index in zip(names, match) if index is not None]
            fresh = [name for name, index in zip(names, match) if index is None]
            logger.warning(
                f"Other {kind} than in {self._path}: transferred: {', '.join(known) or 'none'}; initialised from "
                f"scratch: {', '.join(fresh) or 'none'} (in {len(carried.changed)} parameters: "
                f"{_few(carried.changed, 8)})"
            )

    def _backbone_name(self):
        backbone = getattr(self.model, "backbone", self.model)
        return type(getattr(backbone, "bottom_up", backbone)).__name__

    def _convert_imagenet(self, state_dict, imagenet):
        """Rename a backbone's ImageNet weights, log the result, and refuse weights that do not fill the backbone."""
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
            logger.warning(
                f"{self._path}: {reason}: {len(keys)} parameters initialised from scratch: {', '.join(keys)}"
            )
        if report.resized:
            logger.warning(
                f"{self._path}: {len(report.resized)} relative-position tables of another window interpolated; set "
                "MODEL.SWIN.WINDOW_SIZE (12 for weights trained at 384 pixels) to load them unchanged"
            )
        return report.converted

    def _convert(self, state_dict, released):
        """Rename released weights, log the result, and refuse weights that do not fit completely.

        Returns:
            tuple: the renamed weights, and the note of :meth:`_rename` or None.
        """
        converted, unknown = convert_released(state_dict, released)
        state = self.model.state_dict()
        note, varying = self._other_released_keypoints(converted)
        missing, others, misfits = compare_shapes(converted, state, varying)
        unused = sorted([*unknown, *others])
        logger.info(
            f"{self._path}: {released.name} weights, {len(converted)} parameters converted; {len(unused)} unused "
            f"{unused}; {len(missing)} missing {missing}; {len(misfits)} of another shape {misfits}"
        )
        if missing or misfits or unused:
            raise CheckpointError(
                f"{self._path}: {released.name} weights do not fit this model: {len(missing)} parameters missing "
                f"{missing[:3]}, {len(unused)} unused {unused[:3]}, {len(misfits)} of another shape {misfits[:3]}. "
                f"They load into {released.config}. To learn other keypoints, train with such a config and these "
                "MODEL.WEIGHTS"
            )
        return converted, note

    def _other_released_keypoints(self, converted):
        """The note for released weights with other keypoints than the model's, and the parameters that depend on them.

        The keypoints are COCO's or CrowdPose's, whichever fits. If the model has the same number under other names, the
        weights are treated as those of a custom training, unless ``new_keypoints`` is set.

        Args:
            converted (dict[str, Tensor]): weights under the model's names.

        Returns:
            tuple[dict | None, set[str]]
        """
        ours = self._description()
        if not hasattr(self.model, "keypoint_rows"):
            return None, set()
        for schema in (COCO_PERSON, CROWDPOSE_PERSON):
            note = {"method": ours["method"], "keypoints": list(schema.names)}
            groups = self.model.keypoint_rows(note)
            is_other = note["keypoints"] != ours["keypoints"]
            if not is_other or not all(fits(converted, group) for group in groups):
                continue
            if self.new_keypoints or sorted(note["keypoints"]) == sorted(ours["keypoints"]):
                return note, {name for group in (*groups, *self.model.keypoint_rows(ours)) for name in group}
        return None, set()


@contextmanager
def _naming_configs(path, weights):
    """Add the configs that published weights fit to an error of loading them."""
    try:
        yield
    except CheckpointError as error:
        if weights is None or not weights.configs:
            raise
        raise CheckpointError(f"{error}. {path} fits {' and '.join(weights.configs)}") from error


def _find_fault(weights):
    """Describe the fault of an invalid state dict; "" if it is valid."""
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
    """Join the first names of a long list."""
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def _match_names(ours, theirs, exactly):
    """For each of our names, the index of the same name in theirs, or None; ``exactly``: with the same spelling."""
    if exactly:
        return [theirs.index(name) if name in theirs else None for name in ours]
    return match_keypoints(ours, theirs)
