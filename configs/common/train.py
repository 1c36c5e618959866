# The keys that detectron2's tools/lazyconfig_train_net.py reads beside the model, the data and the optimizer, as in
# detectron2's own configs/common/train.py
train = {
    "output_dir": "./output",
    # ImageNet weights of the backbone to start from, or the weights to evaluate
    "init_checkpoint": "",
    "max_iter": 90000,
    "amp": {"enabled": False},
    # arguments of DistributedDataParallel
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
    # arguments of PeriodicCheckpointer
    "checkpointer": {"period": 5000, "max_to_keep": 5},
    "eval_period": 10000,
    "log_period": 20,
    "device": "cuda",
}
