"""The part of the packaging that pyproject.toml can't express: the packaged configs, and the compiled operator."""

import platform

from setuptools import Extension, find_packages, setup

# Instruction sets that the KP-Net operator is compiled for; the fastest that the processor runs is loaded.
VARIANTS = {"_native": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS["_native_avx2"] = ["-mavx2", "-mfma"]
    VARIANTS["_native_avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]


def native_kp_net(name, flags):
    """Describe a variant. Optional: without a C++ compiler with OpenMP, the operator runs in plain PyTorch."""
    return Extension(
        f"dynpose.layers.kp_net.{name}",
        ["dynpose/layers/kp_net/_native.cpp"],
        extra_compile_args=["-std=c++17", "-O2", "-ftree-vectorize", "-g0", "-fopenmp", "-Wno-psabi", *flags],
        extra_link_args=["-fopenmp"],
        optional=True,
    )


setup(
    packages=[*find_packages(include=["dynpose", "dynpose.*"]), "dynpose.model_zoo.configs"],
    # The source of the configs stays at the top level, and no copy is made in the source tree.
    package_dir={"dynpose.model_zoo.configs": "configs"},
    ext_modules=[native_kp_net(*variant) for variant in VARIANTS.items()],
)
