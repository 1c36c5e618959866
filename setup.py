"""The part of the packaging that pyproject.toml can't express: configs/ is packaged as dynpose/model_zoo/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dynpose", "dynpose.*"]), "dynpose.model_zoo.configs"],
    # The source of the configs stays at the top level, and no copy is made in the source tree.
    package_dir={"dynpose.model_zoo.configs": "configs"},
)
