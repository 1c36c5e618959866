import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from omegaconf import OmegaConf

from dynpose.data import PoseDatasetMapper, ResizeShortestEdge, get_pose_dataset_dicts
from dynpose.evaluation import PoseEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_pose_dataset_dicts)(names="keypoints_coco_2017_train", min_keypoints=1),
    mapper=L(PoseDatasetMapper)(
        is_train=True,
        augmentations=[
            L(ResizeShortestEdge)(short_edge_length=(640, 800), sample_style="range", max_size=1333),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        # of the config that this is part of
        schema="${model.schema}",
    ),
    total_batch_size=16,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_pose_dataset_dicts)(names="keypoints_coco_2017_val", filter_empty=False),
    mapper=L(PoseDatasetMapper)(
        is_train=False,
        augmentations=[L(ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(PoseEvaluator)(dataset_name="${..test.dataset.names}")
