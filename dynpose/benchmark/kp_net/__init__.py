"""The KP-Net operator against grouped convolution.

kp-net runs the KP-Nets of FCPose and InsPose, forward for the peaks (the value, the index and the softmax confidence of
each heatmap's highest cell), and forward and backward for the cross-entropy of the heatmaps, with up to four
implementations:

    grouped    a convolution with one group per person (F.conv2d(..., groups=N)) on the feature map repeated N times,
               with the coordinates appended: the common implementation of generated networks
    reference  the operator in plain PyTorch (backend "torch")
    native     the operator's compiled code (backend "native"); CPU only, float32
    fused      the operator's Triton kernels (backend "triton"); CUDA only

Before timing, their results must agree. Time: the median of many rounds, in each of which every implementation runs
once, by CUDA events on a GPU; consecutive calls read different inputs. Memory: the peak of one call beyond its inputs.
The floor is the minimum time for the work at the matrix rate and the memory bandwidth measured in the same run.
docs/benchmarks.md has the details.

On a GPU it also measures the first call of the fused kernels, the loss of the released FCPose, and training with all
positive locations (--extras chooses).
"""
