"""Small networks and hand-made ground truth, quick enough for unit tests."""

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import load_config
from dynpose.data import KeypointSchema, schema_to_cfg

# four keypoints: a number that nothing has been written for
SCHEMA = KeypointSchema(
    names=("head", "left_hand", "right_hand", "foot"),
    flip_pairs=(("left_hand", "right_hand"),),
    skeleton=((0, 1), (0, 2), (0, 3)),
    sigmas=(0.03, 0.06, 0.06, 0.09),
)

SMALL = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.WEIGHTS", ""),
    *("MODEL.RESNETS.DEPTH", "50"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "64"),
    *("MODEL.FCOS.NUM_CLS_CONVS", "1"),
    *("MODEL.FCOS.NUM_BOX_CONVS", "1"),
    *("MODEL.FCPOSE.BASIS.CONVS_DIM", "16"),
    *("MODEL.FCPOSE.BASIS.NUM_CONVS", "1"),
    *("MODEL.FCPOSE.BASIS.NORM", "BN"),
    *("MODEL.KP_NET.IN_CHANNELS", "8"),
    *("MODEL.KP_NET.WIDTH", "8"),
]


def small_config(config_file="configs/FCPose/Base-FCPose.yaml", *opts, schema=SCHEMA):
    """Config of a small CPU model with the schema's keypoints."""
    cfg = load_config(config_file, [*SMALL, *map(str, opts)])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    schema_to_cfg(cfg, schema)
    return cfg


def small_model(config_file="configs/FCPose/Base-FCPose.yaml", *opts, schema=SCHEMA, seed=0):
    """A small CPU model with fixed random weights."""
    torch.manual_seed(seed)
    return build_model(small_config(config_file, *opts, schema=schema))


def people(boxes, keypoints, size=(128, 128)):
    """Ground truth of one image.

    Args:
        boxes (list): N boxes, XYXY.
        keypoints (list): N lists of (x, y, visibility), one per keypoint of SCHEMA.
    """
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    instances.gt_keypoints = Keypoints(
        torch.tensor(keypoints, dtype=torch.float32).reshape(len(boxes), SCHEMA.num_keypoints, 3)
    )
    return instances


def one_person(x=64.0, y=64.0, size=(128, 128), visibility=2):
    """An image with one person of about 60 pixels at (x, y), four keypoints."""
    box = [x - 20, y - 30, x + 20, y + 30]
    points = [(x, y - 25), (x + 15, y), (x - 15, y), (x, y + 25)]
    return people([box], [[(*point, visibility) for point in points]], size)


def image(instances, seed=0):
    """A detectron2 input with a random image of the instances' size."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, *instances.image_size), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "instances": instances}
