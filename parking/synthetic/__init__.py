"""Made-up parking scenes in the layout of the real data, drawn by code; needs neither torch nor detectron2.

From plan to picture: `planning` decides what a sequence shows, `shapes` models the classes, `scene` draws a frame with
the help of `backdrop`, `ground`, `raster` and `weather`, `dataset` writes it all to disk.
"""

from parking.synthetic.dataset import make_dataset

__all__ = ["make_dataset"]
