# Table 4, HRNet-W32: HRNet_W32_140e.yaml as a lazy config. Flip testing is not part of a lazy config's evaluation.
from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from dynpose.data import AffineResize, RandomAffine
from dynpose.engine.schedule import epochs_to_iterations

from ..common.data.coco_keypoint import dataloader
from ..common.models.cid import model
from ..common.optim import Adam as optimizer
from ..common.schedule import multi_step
from ..common.train import train

dataloader.train.total_batch_size = 40
dataloader.train.mapper.update(
    image_format="RGB",
    augmentations=[L(RandomAffine)(size=[512, 512]), L(T.RandomFlip)(horizontal=True)],
    ignore_masks=True,
)
# no limit: the paper keeps the aspect ratio
dataloader.test.mapper.augmentations = [L(AffineResize)(size=512, max_size=10000)]

# docs/lazy_configs.md: how to convert the weights of HRNet's authors
train.init_checkpoint = "hrnetv2_w32_imagenet_pretrained.pth"
# images of COCO train2017 with a labelled keypoint
iterations = partial(epochs_to_iterations, num_images=56599, batch_size=dataloader.train.total_batch_size)
train.max_iter = iterations(140)
lr_multiplier = multi_step(train.max_iter, [iterations(90), iterations(120)], warmup_iters=0)
