"""Made-up parking scenes in the layout of the real data, drawn by code; needs neither torch nor detectron2.

The module `planning` decides what a sequence shows, `shapes` models the classes, `scene` draws each frame with the help
of `backdrop`, `ground`, `raster` and `weather`, and `dataset` writes the images and annotations to disk.
"""

from parking.synthetic.dataset import make_dataset

__all__ = ["make_dataset"]
