"""Measure how well anchors fit the boxes of a data set, and find anchors that fit better."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import yaml
from tabulate import tabulate

from parking.data.image_io import compute_resized_sides
from parking.utils.text import printable

# Anchors are fitted without boxes narrower or lower than this many pixels of the network's input.
MIN_BOX_SIDE = 2.0
_MAX_KMEANS_ROUNDS = 100
# A mutation adds normal noise to the logarithms of an anchor's sides. The standard deviation is drawn between these
# values: small steps refine an anchor, large steps leave a local optimum.
_MUTATION_SCALES = (0.02, 0.3)


class BoxSizes(NamedTuple):
    """The sizes and classes of a data set's boxes, in images that are resized for the network.

    Attributes:
        sizes: (N, 2) float64, width and height in pixels of the network's input.
        classes: (N,) int64, contiguous.
        num_small: number of boxes left out because a side is below MIN_BOX_SIDE.
        num_crowds: number of annotations left out because they are crowds.
    """

    sizes: np.ndarray
    classes: np.ndarray
    num_small: int
    num_crowds: int


class AnchorFit(NamedTuple):
    """How well anchors fit boxes.

    Attributes:
        recall: best possible recall, 0..1: the share of boxes that at least one anchor fits; NaN without boxes.
        anchors_per_target: mean number of anchors that fit a box; NaN without boxes.
    """

    recall: float
    anchors_per_target: float


def collect_box_sizes(dataset_dicts: Sequence[dict], size: tuple[int, int]) -> BoxSizes:
    """Collect the sizes and classes of a data set's boxes, after scaling each image to just fit into ``size``.

    Args:
        dataset_dicts: in detectron2's format, boxes XYWH_ABS, with height and width of the images.
        size: (height, width) in pixels.
    """
    rows, classes, num_crowds = [], [], 0
    for image in dataset_dicts:
        height, width = image["height"], image["width"]
        resized_height, resized_width = compute_resized_sides(height, width, *size)
        for annotation in image.get("annotations", ()):
            if annotation.get("iscrowd", 0):
                num_crowds += 1
                continue
            _, _, w, h = annotation["bbox"]
            rows.append((w * resized_width / width, h * resized_height / height))
            classes.append(annotation["category_id"])
    sizes = np.array(rows, dtype=np.float64).reshape(-1, 2)
    is_large = (sizes >= MIN_BOX_SIDE).all(axis=1)
    kept = np.array(classes, dtype=np.int64)[is_large]
    return BoxSizes(sizes[is_large], kept, num_small=int((~is_large).sum()), num_crowds=num_crowds)


def find_fits(sizes: np.ndarray, anchors: np.ndarray, max_ratio: float) -> np.ndarray:
    """Return which anchors fit each box, as in training: both sides differ by a factor of less than ``max_ratio``.

    Args:
        sizes: (N, 2) width and height of boxes.
        anchors: (A, 2) or (L, A, 2), in the same unit.
        max_ratio: MODEL.ANCHOR_HEAD.ANCHOR_RATIO, above 1.

    Returns:
        (N, A) or (N, L * A) bool.
    """
    # Compare in float32, as training does; in float64, a ratio at the limit could be decided differently.
    sides = np.asarray(sizes, dtype=np.float32)
    fits = []
    for anchor in np.asarray(anchors, dtype=np.float32).reshape(-1, 2):
        ratios = sides / anchor
        fits.append(np.maximum(ratios, 1 / ratios).max(axis=1) < max_ratio)
    return np.stack(fits, axis=1)


def measure_fit(sizes: np.ndarray, anchors: np.ndarray, max_ratio: float) -> AnchorFit:
    """Measure how well anchors fit boxes; see :func:`find_fits` for the arguments."""
    if not len(sizes):
        return AnchorFit(float("nan"), float("nan"))
    counts = find_fits(sizes, anchors, max_ratio).sum(axis=1)
    return AnchorFit(float((counts > 0).mean()), float(counts.mean()))


def propose_anchors(
    sizes: np.ndarray, shape: tuple[int, int], max_ratio: float, *, num_generations: int, seed: int
) -> np.ndarray:
    """Propose anchors that fit boxes: cluster the boxes' sizes, then refine the centres by random mutations.

    Clustering the boxes is the idea of YOLO9000 (arXiv:1612.08242, section 2, "Dimension Clusters"). Distances here
    are Euclidean between logarithms of the sides, not 1 - IoU, because ratios of sides decide about a match.

    Args:
        sizes: (N, 2) width and height, N > 0.
        shape: (L, A), the number of levels and of anchors on each level.
        max_ratio: see :func:`find_fits`.
        num_generations: length of the evolution; 0 leaves the clusters as they are.
        seed: the same arguments and seed give the same anchors.

    Returns:
        (L, A, 2) in the unit of ``sizes``, with one decimal, sorted by area; the smallest are on the first level.
    """
    rng = np.random.default_rng(seed)
    points = np.log(np.asarray(sizes, dtype=np.float64))
    centers = _cluster(points, shape[0] * shape[1], seed)
    anchors = np.exp(_evolve(points, centers, np.log(max_ratio), num_generations, rng)).round(1).clip(min=0.1)
    order = np.lexsort((anchors[:, 0], anchors.prod(axis=1)))
    return anchors[order].reshape(*shape, 2)


def format_fit(boxes: BoxSizes, class_names: Sequence[str], anchors: np.ndarray, max_ratio: float) -> str:
    """Return a table, as text, of how well anchors fit all boxes and the boxes of each class."""
    groups = [
        ("all", boxes.sizes),
        *((printable(name), boxes.sizes[boxes.classes == i]) for i, name in enumerate(class_names)),
    ]
    rows = []
    for name, sizes in groups:
        fit = measure_fit(sizes, anchors, max_ratio)
        figures = [f"{fit.recall:.4f}", f"{fit.anchors_per_target:.2f}"] if len(sizes) else ["-", "-"]
        rows.append([name, f"{len(sizes):,}", *figures])
    headers = ["class", "boxes", "best possible recall", "anchors per target"]
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=["left", "right", "right", "right"])


def format_config(anchors: np.ndarray, base: str | None = None) -> str:
    """Return the text of a yaml config that sets (L, A, 2) anchors and, if ``base`` is given, has it as ``_BASE_``."""
    head = yaml.safe_dump({"_BASE_": base}, allow_unicode=True, width=10**6) if base else ""
    levels = "".join(f"      - {level}\n" for level in anchors.tolist())
    return f"{head}MODEL:\n  ANCHOR_HEAD:\n    ANCHORS_FROM_WEIGHTS: False\n    ANCHORS:\n{levels}"


def _cluster(points: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Return (num_clusters, 2) centres by k-means++ (Arthur and Vassilvitskii, 2007)."""
    # OpenCV refuses fewer points than clusters, so repeat the points, which gives repeated centres.
    repeated = np.resize(points, (max(len(points), num_clusters), 2)).astype(np.float32)
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, _MAX_KMEANS_ROUNDS, 0.0)
    return cv2.kmeans(repeated, num_clusters, None, criteria, 1, cv2.KMEANS_PP_CENTERS)[2].astype(np.float64)


def _evolve(
    points: np.ndarray, anchors: np.ndarray, max_log_ratio: float, num_generations: int, rng: np.random.Generator
) -> np.ndarray:
    """Refine anchors: mutate one at a time, and keep the change if fitness rises and recall does not fall.

    ``points`` (N, 2) and ``anchors`` (A, 2) are logarithms of sides.
    """
    anchors, sides = anchors.copy(), np.ascontiguousarray(points.T)
    distances = np.stack([_log_ratios(sides, anchor) for anchor in anchors])
    fitness, recall = _rate(distances, max_log_ratio)
    for _ in range(num_generations):
        i = rng.integers(len(anchors))
        scale = np.exp(rng.uniform(*np.log(_MUTATION_SCALES)))
        mutated = anchors[i] + rng.normal(scale=scale, size=2)
        previous = distances[i].copy()
        distances[i] = _log_ratios(sides, mutated)
        child_fitness, child_recall = _rate(distances, max_log_ratio)
        if child_fitness > fitness and child_recall >= recall:
            anchors[i], fitness, recall = mutated, child_fitness, child_recall
        else:
            distances[i] = previous
    return anchors


def _log_ratios(sides: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """Return (N,) distances of boxes from an anchor: the larger of the absolute differences in log width and height.

    ``sides`` (2, N) and ``anchor`` (2,) are logarithms.
    """
    return np.maximum(np.abs(sides[0] - anchor[0]), np.abs(sides[1] - anchor[1]))


def _rate(distances: np.ndarray, max_log_ratio: float) -> tuple[float, float]:
    """Return the fitness, 0..1 (1: each box equals an anchor), and the recall, the share of boxes that an anchor fits.

    ``distances`` are (A, N), from :func:`_log_ratios`.
    """
    best = distances.min(axis=0)
    return float(np.exp(-best).mean()), float((best < max_log_ratio).mean())
