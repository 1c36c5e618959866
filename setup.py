"""dynpose's packaging. Nothing is pinned here; constraints.txt holds the versions that are tested."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="dynpose",
    version="0.1.0",
    description="Single-stage multi-person pose estimation with instance-aware networks, for detectron2",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dynpose", "dynpose.*"]),
    # detectron2 itself is not on the package index under its own name: dynpose/tools/install_detectron2.py installs it.
    install_requires=[
        "torch>=2.4",
        "torchvision",
        "timm>=1.0.10",
        "safetensors",
        "fvcore",
        "pycocotools",
        "faster-coco-eval>=1.6",
        "opencv-python-headless",
        "numpy",
        "msgspec",
        "portalocker>=2",
        "scipy",
        "Pillow",
        "tqdm",
        "tabulate",
    ],
    extras_require={"dev": ["pytest", "ruff"], "slurm": ["submitit>=1.5"]},
    entry_points={"console_scripts": ["dynpose=dynpose.tools.cli:main"]},
)
