r"""Training iterations of any config.

For every config: iterations and images per second, the time of an iteration (--parts: also of its forward pass,
backward pass and optimizer step), and its peak memory. No data and no weights are needed: images are noise, with
synthetic people spread over them. Any meta-architecture of detectron2's registry can be trained, with the optimizer of
the config. With --variant, several configs are made from one file; the first config is the baseline of the ratios:

    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml --variant "" \
        --variant "MODEL.FCPOSE.MAX_SAMPLES 500"

Time: the median of many rounds, in each of which every config runs once, from the batch on the device to the end of the
step. Memory: the total at the peak, including weights, gradients and optimizer state. docs/benchmarks.md has the
details.
"""
