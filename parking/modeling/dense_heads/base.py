"""The interface between heads and the rest of the detector: base class, registry and predictions.

Shape legend: N images, P predictions of an image (of all levels), C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.registry import Registry
from torch import Tensor, nn

DENSE_HEAD_REGISTRY = Registry("DENSE_HEAD")
DENSE_HEAD_REGISTRY.__doc__ = """
Registry for heads of :class:`parking.modeling.YOLO`: subclasses of :class:`DenseHead`.

The registered object is called with `obj(cfg, input_shape)`, the list of the levels' :class:`ShapeSpec`, finest first.
"""


class DensePredictions(NamedTuple):
    """The decoded predictions of a head for a batch, in float32; the finest level comes first.

    Attributes:
        boxes: (N, P, 4) XYXY in pixels of the network's input.
        scores: (N, P, C) final probabilities.
        level_sizes: number of predictions per image on each level; these numbers sum up to P.
        upper_bound: (N, P), a bound that no score of the prediction exceeds, or None. A head gives the bound if it is
            cheap to compute; the postprocessing can then skip most scores.
    """

    boxes: Tensor
    scores: Tensor
    level_sizes: tuple[int, ...]
    upper_bound: Tensor | None = None

    def of_levels(self, start: int, stop: int | None = None) -> "DensePredictions":
        """The predictions of the levels ``start:stop``, as views that share memory with these predictions."""
        sizes = self.level_sizes[start:stop]
        first = sum(self.level_sizes[:start])
        rows = slice(first, first + sum(sizes))
        bound = None if self.upper_bound is None else self.upper_bound[:, rows]
        return DensePredictions(self.boxes[:, rows], self.scores[:, rows], sizes, bound)


def join_predictions(parts: Sequence[DensePredictions]) -> DensePredictions:
    """Concatenate predictions for the same images."""
    bounds = [part.upper_bound for part in parts]
    return DensePredictions(
        torch.cat([part.boxes for part in parts], dim=1),
        torch.cat([part.scores for part in parts], dim=1),
        tuple(size for part in parts for size in part.level_sizes),
        None if any(bound is None for bound in bounds) else torch.cat(bounds, dim=1),
    )


class ClassRows(NamedTuple):
    """The layout of a tensor's rows: equal groups, each with some rows that belong to no class, then one row per class.

    Attributes:
        groups: number of groups, which are equally long.
        before: number of rows in each group before the rows of the classes.
        prior: initial value of the rows of a new class: a logit for a bias, and 0 for weights.
    """

    groups: int
    before: int
    prior: float

    def count_classes(self, tensor: Tensor) -> int | None:
        """Derive the number of classes from the number of rows of ``tensor``; None if it does not fit this layout."""
        if not tensor.dim() or len(tensor) % self.groups:
            return None
        num_classes = len(tensor) // self.groups - self.before
        return num_classes if num_classes > 0 else None


class DenseHead(nn.Module):
    """Base class of heads, which turn features into boxes: convolutions, decoding, assignment and losses.

    In inference, submodules of a head that have parameters but no submodules of their own, such as convolutions,
    compute in TEST.DTYPE; everything else computes in float32.

    Only the head knows the structure of the raw outputs of :meth:`forward`; callers pass them on to :meth:`decode` or
    :meth:`losses`.
    """

    def forward(self, features: list[Tensor]) -> Any:
        """Compute raw outputs, in the precision of the training, inference or export that runs.

        Args:
            features: per level (N, channels, H, W), finest first.

        Returns:
            raw outputs: a tensor, or lists or tuples of these, nested as the head likes.
        """
        raise NotImplementedError

    def decode(self, raw: Any) -> DensePredictions:
        """Turn ``raw``, of any precision, into predictions in float32, without control flow that depends on values."""
        raise NotImplementedError

    def losses(self, raw: Any, gt_instances: list[Instances], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            gt_instances: for each image gt_boxes (XYXY in pixels of the network's input) and gt_classes; any number.
            image_size: (height, width) in pixels of the padded batch.

        Returns:
            float32 scalars by name ("loss_..."). Their sum is trained, and each is multiplied by the number of images,
            because the trainer sums gradients over images.

        The rules for a head are:

        * Means are over the matches of all processes.
        * Every parameter gets a gradient in every batch, even if the batch has no boxes, because processes wait for
          each other's gradients.
        * If a loss changes during the training, the change depends only on
          ``detectron2.utils.events.get_event_storage().iter`` and a number from the config or from
          :meth:`strong_augmentation_ends`, so that a resumed training is exact.
        """
        raise NotImplementedError

    def strong_augmentation_ends(self, iteration: int | None) -> None:
        """Tell the head when mosaic and mixup end; called when a training begins or resumes, and when this changes.

        Args:
            iteration: the first iteration whose images are drawn without mosaic and mixup; None if there is none.
        """

    def class_rows(self) -> Mapping[str, ClassRows]:
        """Return the layout of each tensor that has rows for classes, by the tensor's name in the head.

        A tensor with one dimension is a bias.
        """
        raise NotImplementedError

    def adapt_weights(self, state: dict[str, Tensor]) -> list[str]:
        """Check the head's tensors of a weights file in ``state``, and replace some if needed; called before loading.

        Returns:
            Phrases for the log that say what was replaced, such as "the anchors are the config's".

        Raises:
            ValueError: a tensor has values that no sound head has; the message names the tensor and the values.
        """
        return []


def iter_raw(raw: Any) -> Iterator[Tensor]:
    """Yield the tensors in the nested result of :meth:`DenseHead.forward`."""
    if isinstance(raw, Tensor):
        yield raw
    else:
        for part in raw:
            yield from iter_raw(part)


def make_grid(level: Tensor) -> Tensor:
    """The column and row (H, W, 2), in float32, of each cell of ``level``, whose dimensions 2 and 3 are H and W."""
    # Heads make the grid in every call: this is cheap, and a cache would not work with tracing and threads.
    height, width = level.shape[2:4]
    rows = torch.arange(height, device=level.device, dtype=torch.float32)
    cols = torch.arange(width, device=level.device, dtype=torch.float32)
    rows, cols = torch.meshgrid(rows, cols, indexing="ij")
    return torch.stack([cols, rows], dim=-1)


def list_cells(level: Tensor) -> Tensor:
    """Reshape ``level`` (N, channels, H, W) to (N, H W, channels), as a view if rows follow each other in memory."""
    return level.permute(0, 2, 3, 1).flatten(1, 2)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of ``value`` over the processes of a training; all processes must call this, with equal shapes."""
    if comm.get_world_size() == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / comm.get_world_size()


def build_dense_head(cfg, input_shape: list[ShapeSpec]) -> DenseHead:
    """Build the head that ``cfg.MODEL.HEAD.NAME`` names."""
    return DENSE_HEAD_REGISTRY.get(cfg.MODEL.HEAD.NAME)(cfg, input_shape)
