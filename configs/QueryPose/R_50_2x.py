# Table 4, ResNet-50: R_50_2x.yaml as a lazy config
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from dynpose.data import RandomCropKeepingPeople, ResizeShortestEdge

from ..common.data.coco_keypoint import dataloader
from ..common.models.querypose import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import multi_step
from ..common.train import train

dataloader.train.mapper.update(
    image_format="RGB",
    augmentations=[
        L(T.RandomFlip)(horizontal=True),
        # the crop of DETR and Sparse R-CNN, in half of the images
        L(T.RandomApply)(
            tfm_or_aug=L(T.AugmentationList)(
                augs=[
                    L(ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
                    L(RandomCropKeepingPeople)(crop_type="absolute_range", crop_size=[384, 600]),
                ]
            ),
            prob=0.5,
        ),
        L(ResizeShortestEdge)(short_edge_length=list(range(480, 801, 32)), sample_style="choice", max_size=1333),
    ],
)

# the flow model learns at ten times the rate
optimizer.params.lr_factors = [["flow", 10.0]]

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.max_iter = 280000
lr_multiplier = multi_step(train.max_iter, [220000, 260000], warmup_iters=1000, warmup_factor=0.01)
