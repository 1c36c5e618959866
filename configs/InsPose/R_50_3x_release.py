# InsPose as released in opera: R_50_3x_release.yaml as a lazy config
from functools import partial

from dynpose.engine.schedule import epochs_to_iterations

from ..common.data.coco_keypoint import dataloader
from ..common.models.inspose_released import model
from ..common.optim import SGD as optimizer
from ..common.schedule import multi_step
from ..common.train import train

# images whose people have no labelled keypoints are trained on too
dataloader.train.dataset.min_keypoints = 0
dataloader.train.total_batch_size = 32
dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[640, 672, 704, 736, 768, 800], sample_style="choice")

optimizer.update(lr=0.02, clip_type="full_model", clip_value=35.0)
# norms decay like everything else
optimizer.params.weight_decay_norm = 1e-4

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
# images of COCO train2017 with people who are no crowd
iterations = partial(epochs_to_iterations, num_images=64115, batch_size=dataloader.train.total_batch_size)
train.max_iter = iterations(36)
lr_multiplier = multi_step(train.max_iter, [iterations(27), iterations(33)], warmup_iters=2000)
