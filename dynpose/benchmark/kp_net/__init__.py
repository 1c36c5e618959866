"""The KP-Net operator against the usual way to compute it.

kp-net runs the KP-Nets of FCPose and InsPose, forward for the peaks (the value, the index and the softmax confidence of
each heatmap's highest cell), and forward and backward for the cross-entropy of the heatmaps, in up to three ways:

    grouped    a convolution with one group for each person (F.conv2d(..., groups=N)) on the feature map repeated N
               times, with the coordinates appended: the usual way to run a generated network
    reference  the operator in plain PyTorch (backend "torch")
    fused      the operator's Triton kernels (backend "triton"); CUDA only

Before anything is timed, they must give the same numbers. Time: the median of many rounds, in each of which every
implementation runs once, by the device's events on a GPU; every call reads other inputs than the one before. Memory:
what is held at the peak of one call beyond its inputs. The floor is the time that the work takes at the least, at the
matrix rate and the memory bandwidth measured in the same run. docs/benchmarks.md describes it all precisely.

On a GPU it also measures the first call of the fused kernels, the loss of the released FCPose, and training with all
positive locations (--extras chooses).
"""
