"""Packaging of ``parking``: what it needs, in ranges. ``requirements.lock`` pins one tried set of them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "parking/__init__.py").read_text(encoding="utf-8"), re.M)[1]

# torch, torchvision, OpenCV and detectron2 are missing on purpose: `pip install -e .` in an environment that has them
# (a container, say) must replace none, nor put a second OpenCV beside an `opencv-python`.
INSTALL_REQUIRES = [
    "fvcore>=0.1.5",
    "iopath>=0.1.9",
    "matplotlib>=3.7",
    "numpy>=1.23",
    "Pillow>=9.5",
    "pycocotools>=2.0.6",
    "PyYAML>=6",
    "safetensors>=0.4.3",
    # Tells a damaged JPEG from a sound one, which OpenCV and Pillow do not.
    "simplejpeg>=1.8",
    "tabulate>=0.9",
    "tensorboard>=2.12",
    "tqdm>=4.65",
    "yacs>=0.1.8",
    # Used by detectron2 alone, which is installed without its own list.
    "cloudpickle>=2.2",
    "omegaconf>=2.1,<2.4",
    "packaging>=21",
    "termcolor>=1.1",
]

EXTRAS = {
    "torch": ["torch>=2.11,<2.16", "torchvision>=0.26,<0.31"],
    "opencv": ["opencv-python-headless>=4.12"],
    # Korean class names in pictures: a font (Nanum Gothic), of which only the files are used.
    "korean": ["koreanize-matplotlib>=0.1.1"],
    # faster-coco-eval: what `tools/benchmark.py --task score` compares with.
    "test": ["faster-coco-eval>=1.6", "hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.5"],
    "lint": ["ruff>=0.9"],
    # What `make setup` installs the others with.
    "setup": ["setuptools>=77", "uv>=0.9"],
}
EXTRAS["all"] = [*EXTRAS["torch"], *EXTRAS["opencv"]]

setup(
    name="parking",
    version=VERSION,
    description="Detection of moving objects in parking scenes: a YOLO for detectron2",
    license="Apache-2.0",
    packages=find_packages(include=["parking", "parking.*"]),
    python_requires=">=3.10,<3.14",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
)
