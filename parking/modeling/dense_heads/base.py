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
    """All that a head predicts in a batch, in float32; the finest level comes first.

    Attributes:
        boxes: (N, P, 4) XYXY in pixels of the network's input.
        scores: (N, P, C) final probabilities.
        level_sizes: how many predictions of an image each level has; their sum is P.
        upper_bound: (N, P), a bound that no score of the prediction exceeds, or None. A head gives it if that is cheap;
            the postprocessing then need not look at all scores.
    """

    boxes: Tensor
    scores: Tensor
    level_sizes: tuple[int, ...]
    upper_bound: Tensor | None = None

    def of_levels(self, start: int, stop: int | None = None) -> "DensePredictions":
        """The predictions of the levels ``start:stop``, as views of the same memory."""
        sizes = self.level_sizes[start:stop]
        first = sum(self.level_sizes[:start])
        rows = slice(first, first + sum(sizes))
        bound = None if self.upper_bound is None else self.upper_bound[:, rows]
        return DensePredictions(self.boxes[:, rows], self.scores[:, rows], sizes, bound)


def join_predictions(parts: Sequence[DensePredictions]) -> DensePredictions:
    """The predictions of all ``parts`` of the same images, one after the other."""
    bounds = [part.upper_bound for part in parts]
    return DensePredictions(
        torch.cat([part.boxes for part in parts], dim=1),
        torch.cat([part.scores for part in parts], dim=1),
        tuple(size for part in parts for size in part.level_sizes),
        None if any(bound is None for bound in bounds) else torch.cat(bounds, dim=1),
    )


class ClassRows(NamedTuple):
    """Which rows of a tensor belong to classes: in each of ``groups`` groups, all but the first ``before``.

    Attributes:
        prior: what a new class's rows start from, a logit for a bias and 0 for weights.
    """

    groups: int
    before: int
    prior: float

    def count_classes(self, tensor: Tensor) -> int | None:
        """Number of classes of a tensor with this layout; None if its number of rows does not fit the layout."""
        if not tensor.dim() or len(tensor) % self.groups:
            return None
        num_classes = len(tensor) // self.groups - self.before
        return num_classes if num_classes > 0 else None


class DenseHead(nn.Module):
    """Base class of heads, which turn features into boxes: convolutions, decoding, assignment and losses.

    In inference, its submodules that have parameters but no submodules of their own, such as convolutions, compute in
    TEST.DTYPE; everything else computes in float32.

    Only the head knows the structure of what :meth:`forward` returns; callers pass it on to :meth:`decode` or
    :meth:`losses`.
    """

    def forward(self, features: list[Tensor]) -> Any:
        """Compute raw outputs; called in training, in inference and by exports, in the precision of each.

        Args:
            features: per level (N, channels, H, W), finest first.

        Returns:
            raw outputs: a tensor, or lists or tuples of these, nested as the head likes.
        """
        raise NotImplementedError

    def decode(self, raw: Any) -> DensePredictions:
        """Turn ``raw``, of any precision, into predictions in float32; no step may depend on the values of tensors."""
        raise NotImplementedError

    def losses(self, raw: Any, gt_instances: list[Instances], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """
        Args:
            gt_instances: for each image gt_boxes (XYXY in pixels of the network's input) and gt_classes; any number.
            image_size: (height, width) in pixels of the padded batch.

        Returns:
            float32 scalars by name ("loss_..."), whose sum is trained, each times the number of images: the trainer
            sums gradients over images. Means are over the matches of all processes. Every parameter needs a gradient
            in every batch, even without boxes, because processes wait for each other's gradients. A loss that changes
            during the training compares ``detectron2.utils.events.get_event_storage().iter`` with a number from the
            config or from :meth:`strong_augmentation_ends`, so that a resumed training stays exact.
        """
        raise NotImplementedError

    def strong_augmentation_ends(self, iteration: int | None) -> None:
        """Take the end of strong augmentation; called before a training begins or goes on, and again if the end moves.

        Args:
            iteration: the first one whose images are drawn without mosaic and mixup; None if there is none.
        """

    def class_rows(self) -> Mapping[str, ClassRows]:
        """The tensors that have rows for classes, by their names within the head; biases are 1-dimensional."""
        raise NotImplementedError

    def adapt_weights(self, state: dict[str, Tensor]) -> list[str]:
        """Called with the head's tensors of a weights file before they are loaded; may replace some in ``state``.

        Returns:
            Phrases that say what was replaced, for the log, such as "the anchors are the config's".

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


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of ``value`` over the processes of a training; all of them must call this, with equal shapes."""
    if comm.get_world_size() == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / comm.get_world_size()


def build_dense_head(cfg, input_shape: list[ShapeSpec]) -> DenseHead:
    """The head that ``cfg.MODEL.HEAD.NAME`` names."""
    return DENSE_HEAD_REGISTRY.get(cfg.MODEL.HEAD.NAME)(cfg, input_shape)
