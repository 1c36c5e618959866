"""Install detectron2 0.6 from the package index into the running Python, unless a version is installed.

    python dynpose/tools/install_detectron2.py [--constraint constraints.txt]

detectron2 is not published under its own name. Its 0.6 source is, as ``pb1-detectron2``: the Python files of the
upstream v0.6 tag without the C++ sources, so that a plain ``pip install`` of it fails to compile. This script downloads
that sdist (by hash), drops the compiled extension (dynpose does not need it; rotated boxes and detectron2's deformable
convolution are unavailable), fixes the lines that fail with current Pillow or without the extension, as upstream's main
branch does, and installs the result under the name ``detectron2``.

It imports only the standard library, so it runs when nothing but torch is installed. If ``import detectron2`` already
works, with any version, it does nothing.
"""

import argparse
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

SDIST = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

_GUARDED_IMPORT = "try:\n    from detectron2 import _C\nexcept ImportError:\n    _C = None\n"

# file -> (released text, fixed text); each must occur exactly once
_FIXES = {
    "detectron2/layers/deform_conv.py": ("from detectron2 import _C\n", _GUARDED_IMPORT),
    "detectron2/layers/rotated_boxes.py": ("from detectron2 import _C\n", _GUARDED_IMPORT),
    "detectron2/layers/roi_align_rotated.py": ("from detectron2 import _C\n", _GUARDED_IMPORT),
    "detectron2/evaluation/coco_evaluation.py": (
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n    COCOeval_opt = COCOeval\n",
    ),
    "detectron2/data/transforms/transform.py": ("interp=Image.LINEAR", "interp=Image.BILINEAR"),
    "setup.py": ('name="pb1-detectron2"', 'name="detectron2"'),
}


def main() -> None:
    """Install detectron2 unless it is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraint", help="pip constraints file for detectron2's own requirements")
    args = parser.parse_args()

    if importlib.util.find_spec("detectron2") is not None:
        print("detectron2 is already installed: nothing to do")
        return
    for needed in ("torch", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            sys.exit(f"{needed} is not installed: install torch, torchvision and 'setuptools<81' first")
    with tempfile.TemporaryDirectory() as folder:
        source = _download(pathlib.Path(folder))
        _apply_fixes(source)
        constraint = ["--constraint", args.constraint] if args.constraint else []
        _pip("install", "--no-build-isolation", *constraint, str(source))
    print("detectron2 0.6 is installed")


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode:
        sys.exit(f"failed: {' '.join(command)}")


def _download(folder):
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{SDIST} --hash=sha256:{SHA256}\n")
    _pip(
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes"),
        *("--requirement", str(requirement), "--dest", str(folder)),
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def _apply_fixes(source):
    for name, (released, fixed) in _FIXES.items():
        path = source / name
        text = path.read_text()
        if text.count(released) != 1:
            sys.exit(f"{SDIST}: {name} does not hold {released!r} once; it is not the release this script knows")
        path.write_text(text.replace(released, fixed))

    setup = source / "setup.py"
    text = re.sub(r'\n\s*"black==[^"]*",', "", setup.read_text())
    text = text.replace("ext_modules=get_extensions(),", "ext_modules=[],")
    setup.write_text(text)
    # setup.py replaces model_zoo/configs by a link to configs/
    shutil.copytree(source / "detectron2" / "model_zoo" / "configs", source / "configs")


if __name__ == "__main__":
    main()
