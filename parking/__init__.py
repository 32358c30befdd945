"""Detection of moving objects in parking scenes: a YOLO for detectron2.

The public names are resolved on first use, so that ``import parking`` (and everything that needs no model, such as
``parking.synthetic``) costs neither torch nor detectron2, which take about ten seconds to import.
"""

import importlib
import importlib.util

__version__ = "0.1.0"

_INSTALL_HINTS = {
    "torch": "`pip install -e '.[torch]'`",
    "torchvision": "`pip install -e '.[torch]'`",
    "cv2": "`pip install -e '.[opencv]'`",
    "detectron2": "`make detectron2 PYTHON=python`",
}

for _name, _hint in _INSTALL_HINTS.items():
    if importlib.util.find_spec(_name) is None:
        raise ImportError(
            f"parking needs {_name}, which is not installed: in the repository, run `make setup` for a complete .venv, "
            f"or {_hint} to add it to an environment of your own.",
            name=_name,
        )

_PUBLIC = {
    "Detector": "parking.inference.detector",
    "get_cfg": "parking.config",
    "register_parking_datasets": "parking.challenge.datasets",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'parking' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
