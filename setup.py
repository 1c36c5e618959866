"""The part of the packaging that pyproject.toml can't express: the packaged configs, and the compiled operator."""

from setuptools import Extension, find_packages, setup

setup(
    packages=[*find_packages(include=["dynpose", "dynpose.*"]), "dynpose.model_zoo.configs"],
    # The source of the configs stays at the top level, and no copy is made in the source tree.
    package_dir={"dynpose.model_zoo.configs": "configs"},
    # Optional: without a C++ compiler with OpenMP, the operator runs in plain PyTorch.
    ext_modules=[
        Extension(
            "dynpose.layers.kp_net._native",
            ["dynpose/layers/kp_net/_native.cpp"],
            extra_compile_args=["-std=c++17", "-O3", "-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    ],
)
