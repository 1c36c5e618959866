r"""Training iterations of any config.

For every config: iterations and images in a second, the time of an iteration (--parts: of its forward pass, backward
pass and optimizer step apart), and its memory at the peak. No data and no weights are needed: images are noise, with
synthetic people spread over them. Any meta-architecture of detectron2's registry is trained, with the config's own
optimizer. With --variant one file gives several configs to compare; the first of all is the baseline of the ratios:

    dynpose benchmark train --config-file configs/FCPose/R_50_3x.yaml --variant "" \
        --variant "MODEL.FCPOSE.MAX_SAMPLES 500"

Time: the median of many rounds, in each of which every config runs once, from the batch on the device until the
step is done. Memory: all that is held at the peak, weights, gradients and the optimizer's state included.
docs/benchmarks.md describes it all precisely.
"""
