import torch
from detectron2.config import LazyCall as L

from dynpose.engine import build_clipped_optimizer, pose_optimizer_params

# ``params.model`` is set by the training script before the optimizer is instantiated.
SGD = L(build_clipped_optimizer)(
    optimizer_class=torch.optim.SGD,
    params=L(pose_optimizer_params)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    clip_type="value",
    clip_value=1.0,
)

Adam = L(build_clipped_optimizer)(
    optimizer_class=torch.optim.Adam,
    params=L(pose_optimizer_params)(base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0),
    lr=0.001,
    weight_decay=0.0,
)

AdamW = L(build_clipped_optimizer)(
    optimizer_class=torch.optim.AdamW,
    # [pattern, factor] pairs: parameters with the pattern in their name learn at that many times the rate
    params=L(pose_optimizer_params)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm="${..weight_decay}", lr_factors=[]
    ),
    lr=2.5e-5,
    weight_decay=1e-4,
    clip_type="full_model",
    clip_value=1.0,
)
