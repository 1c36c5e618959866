"""From command-line arguments to a finished run: what train_net.py calls."""

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, check_at_least_one, load_config
from dynpose.data import (
    check_dataset_files,
    check_images,
    register_datasets_from_cfg,
    schema_from_cfg,
    schema_to_cfg,
)
from dynpose.data.affine import check_reads_to_original
from dynpose.evaluation.ground_truth import read_ground_truth

from .resuming import resolve_seed
from .schedule import resolve_epochs, resolve_reference_batch
from .trainer import PoseTrainer


def setup(args):
    """Read the config, register its data sets, check that they fit the model, and prepare the output folder.

    The keypoint schema is written into the config, for training also the iterations of a schedule in epochs, the
    learning rate for the batch and a seed. The config is saved to ``OUTPUT_DIR/config.yaml``: that file and the weights
    are all that prediction needs.

    Args:
        args (argparse.Namespace): of detectron2's ``default_argument_parser``.

    Returns:
        CfgNode: frozen.

    Raises:
        ConfigError, DatasetError: with the file, the item and the mend.
    """
    cfg = load_config(args.config_file, args.opts)
    check_affine_resize(cfg)
    register_datasets_from_cfg(cfg)
    for name in cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        check_dataset_files(name)
        _check_classes(cfg, name)
        if cfg.DATASETS.CHECK_IMAGES and comm.is_main_process():
            check_images(DatasetCatalog.get(name))
    schema = schema_from_cfg(cfg)
    schema_to_cfg(cfg, schema)
    if comm.is_main_process():
        _check_crowd_indices(cfg.DATASETS.TEST, schema.num_keypoints)
    if not args.eval_only:
        check_at_least_one(cfg, "SOLVER.IMS_PER_BATCH")
        resolve_epochs(cfg)
        resolve_reference_batch(cfg)
        resolve_seed(cfg, resume=args.resume)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def check_affine_resize(cfg):
    """Refuse ``INPUT.AFFINE_RESIZE_TEST`` for a meta-architecture that does not read what it adds.

    Raises:
        ConfigError: see :func:`~dynpose.data.affine.check_reads_to_original`.
    """
    if cfg.INPUT.AFFINE_RESIZE_TEST:
        check_reads_to_original(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE))


# Where each meta-architecture reads how many classes it tells apart
_NUM_CLASSES_KEYS = {
    "FCPose": "FCOS",
    "InsPose": "FCOS",
    "InsPoseReleased": "FCOS",
    "QueryPose": "QUERYPOSE",
    "GeneralizedRCNN": "ROI_HEADS",
}
_ONE_CLASS = ("CID",)


def _check_classes(cfg, name):
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture in _ONE_CLASS:
        num_classes, mend = 1, ""
    elif architecture in _NUM_CLASSES_KEYS:
        key = _NUM_CLASSES_KEYS[architecture]
        num_classes, mend = cfg.MODEL[key].NUM_CLASSES, f"set MODEL.{key}.NUM_CLASSES to {{}}, or "
    else:
        return  # the user's own
    classes = MetadataCatalog.get(name).get("thing_classes") or []
    if len(classes) != num_classes:
        raise ConfigError(
            f"data set {name!r} has {len(classes)} classes ({', '.join(classes[:3])}, ...), {architecture} has "
            f"{num_classes}: {mend.format(len(classes))}choose one category of the data set (key category in "
            "DATASETS.POSE)"
        )


def _check_crowd_indices(names, num_keypoints):
    """Find what CrowdPose's protocol lacks now: an evaluation would, hours into a run."""
    for name in names:
        if MetadataCatalog.get(name).get("keypoint_protocol") == "crowdpose":
            read_ground_truth(name, num_keypoints)


def main(args):
    """Train, or evaluate with ``--eval-only``.

    Args:
        args (argparse.Namespace): of detectron2's ``default_argument_parser``.

    Returns:
        dict: the last evaluation's results.

    Raises:
        CheckpointError: MODEL.WEIGHTS do not fit the model; to be evaluated, they must fill it.
    """
    cfg = setup(args)
    if not args.eval_only:
        trainer = PoseTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        # DefaultTrainer.train returns it only where TEST.EXPECTED_RESULTS is set
        return getattr(trainer, "_last_eval_results", {})

    model = PoseTrainer.build_model(cfg)
    checkpointer = PoseCheckpointer(model, save_dir=cfg.OUTPUT_DIR, complete=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = PoseTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results = {**results, **PoseTrainer.test_with_TTA(cfg, model)}
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
