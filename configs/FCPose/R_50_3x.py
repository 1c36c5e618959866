# Table 6, ResNet-50: R_50_3x.yaml as a lazy config
from detectron2.config import LazyCall as L

from dynpose.data import RandomCropKeepingPeople

from ..common.data.coco_keypoint import dataloader
from ..common.models.fcpose import model
from ..common.optim import SGD as optimizer
from ..common.schedule import multi_step
from ..common.train import train

dataloader.train.mapper.augmentations[0].short_edge_length = [320, 800]
dataloader.train.mapper.augmentations.insert(
    0, L(RandomCropKeepingPeople)(crop_type="relative_range", crop_size=[0.4, 0.4])
)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = 270000
lr_multiplier = multi_step(train.max_iter, [180000, 240000], warmup_iters=1000)
