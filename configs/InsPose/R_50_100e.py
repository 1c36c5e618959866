# Table 5, ResNet-50: R_50_100e.yaml as a lazy config
from functools import partial

from dynpose.engine.schedule import epochs_to_iterations

from ..common.data.coco_keypoint import dataloader
from ..common.models.inspose import model
from ..common.optim import SGD as optimizer
from ..common.schedule import multi_step
from ..common.train import train

optimizer.update(clip_type="norm", clip_value=35.0)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
# images of COCO train2017 with a labelled keypoint
iterations = partial(epochs_to_iterations, num_images=56599, batch_size=dataloader.train.total_batch_size)
train.max_iter = iterations(100)
lr_multiplier = multi_step(train.max_iter, [iterations(75), iterations(90)], warmup_iters=2000)
