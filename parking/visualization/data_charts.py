"""Draw charts of a data set: its classes, boxes and conditions, and examples of each class."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from parking.visualization.colors import class_colors
from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.drawing import encode_image
from parking.visualization.fonts import drawable, fit_font

# Colours of the bars of training and validation, or of each data set; the colours differ in gray print, too.
_SIDE_COLORS = ("#1f5a92", "#f2a03d", "#7fb069", "#b05f9e")
_BAR_COLOR, _MEDIAN_COLOR = "#1f5a92", "#c23b22"
_DPI = 120
_GRAY = 235
# Longest label in characters; longer ones would leave no room for the chart.
_MAX_LABEL_LENGTH = 40


def plot_class_counts(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Plot the number of boxes of each class, with a bar for each side of the split.

    The scale is logarithmic, because the numbers differ by a factor of a hundred.

    Args:
        counts: for each side of the split the number of boxes of each class, in the order of ``class_names``.
    """
    num_sides = max(len(counts), 1)
    row_height = 0.14 + 0.17 * num_sides
    figure = _make_figure(9, 1.4 + row_height * max(len(class_names), 3))
    axes = figure.add_subplot()
    rows = np.arange(len(class_names))
    thickness = 0.8 / num_sides
    largest = max((max(values, default=0) for values in counts.values()), default=0)
    for i, (side, values) in enumerate(counts.items()):
        y = rows - 0.4 + thickness * (i + 0.5)
        label = f"{_text(side)}: {_number(sum(values))} boxes"
        axes.barh(y, values, thickness * 0.9, color=_SIDE_COLORS[i % len(_SIDE_COLORS)], label=label)
        share = sum(values) or 1
        for position, value in zip(y, values, strict=True):
            # Write "none" in place of a bar of length 0, which nobody would see.
            text = f" {_number(value)}  ({100 * value / share:.1f} %)" if value else " none"
            axes.text(max(value, 0.7), position, text, va="center", fontsize=8, color="black" if value else "#a00000")
    # Set the limits before the scale: without them, matplotlib cannot make an axis logarithmic if all values are 0.
    axes.set_xlim(0.7, max(largest, 10) * 4)
    axes.set_xscale("log")
    _label_log_axis(axes.xaxis, (1,))
    axes.set_yticks(rows, **_as_labels(class_names, 10))
    axes.set_ylim(len(class_names) - 0.4, -0.6)
    _finish(axes, "Boxes per class", "boxes (logarithmic)", grid="x")
    _add_legend(figure, axes)
    return figure


def plot_box_sizes(boxes: np.ndarray) -> Figure:
    """Plot three charts of boxes: widths against heights, sizes, and aspect ratios.

    Args:
        boxes: (N, 2) widths and heights in pixels, above 0.
    """
    figure = _make_figure(14, 4.6)
    joint, size, ratio = figure.subplots(1, 3)
    widths, heights = np.asarray(boxes, dtype=np.float64).reshape(-1, 2).T
    if len(widths):
        _draw_joint(figure, joint, widths, heights)
        _draw_sizes(size, np.sqrt(widths * heights))
        _draw_ratios(ratio, widths / heights)
    else:
        for axes in (joint, size, ratio):
            _say_empty(axes)
    _finish(joint, f"Width and height of {_number(len(widths))} boxes", "width (pixels)", "height (pixels)")
    _finish(size, "Size", "square root of the area (pixels)", "boxes", grid="y")
    _finish(ratio, "Aspect ratio", "width : height", "boxes", grid="y")
    return figure


def plot_boxes_per_image(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Plot how many images have 0, 1, 2, ... boxes.

    Args:
        counts: for each side of the split the number of boxes of each of its images.
    """
    figure = _make_figure(9, 4.4)
    axes = figure.add_subplot()
    most = max((max(values, default=0) for values in counts.values()), default=0)
    step = max(1, -(-(most + 1) // 60))
    edges = np.arange(0, most + step + 1, step) - 0.5
    bottom = np.zeros(len(edges) - 1)
    for i, (side, values) in enumerate(counts.items()):
        heights = np.histogram(values, edges)[0]
        mean = np.mean(values) if len(values) else 0.0
        label = f"{_text(side)}: {_number(len(values))} images, {mean:.1f} boxes each on average"
        centers = (edges[:-1] + edges[1:]) / 2
        axes.bar(centers, heights, 0.85 * step, bottom, color=_SIDE_COLORS[i % len(_SIDE_COLORS)], label=label)
        bottom += heights
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(edges[0] - 0.2 * step, edges[-1] + 0.2 * step)
    _finish(axes, "Boxes per image", "boxes in an image", "images", grid="y")
    _add_legend(figure, axes)
    return figure


def plot_conditions(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """Plot how many images have each value of each condition (such as the weather), in a panel for each condition.

    Args:
        counts: number of images by condition, side of the split, and value of the condition.
    """
    panels = {condition: _join_values(sides) for condition, sides in counts.items()}
    columns = 3
    rows = -(-len(panels) // columns)
    longest = max((len(values) for values in panels.values()), default=1)
    figure = _make_figure(13, 0.9 + rows * (1.1 + 0.3 * max(longest, 4)))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (condition, values) in zip(grid, panels.items(), strict=False):
        left = np.zeros(len(values))
        for i, side in enumerate(counts[condition]):
            numbers = np.array([counts[condition][side].get(value, 0) for value in values], dtype=np.float64)
            axes.barh(
                range(len(values)), numbers, 0.7, left, color=_SIDE_COLORS[i % len(_SIDE_COLORS)], label=_text(side)
            )
            left += numbers
        for row, total in enumerate(left):
            axes.text(total, row, f" {_number(int(total))}", va="center", fontsize=8)
        axes.set_yticks(range(len(values)), **_as_labels(values, 9))
        # Give all panels the same limits, so that bars are equally thick however few a panel has.
        axes.set_ylim(max(longest, 4) - 0.4, -0.6)
        axes.set_xlim(0, max(left.max(initial=0), 1) * 1.2)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        _finish(axes, condition, "images", grid="x")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if panels:
        _add_legend(figure, grid[0])
    return figure


def draw_class_examples(
    class_names: Sequence[str], examples: Mapping[int, Sequence[np.ndarray]], counts: Sequence[int], *, per_class: int
) -> np.ndarray:
    """Draw a sheet with a row of examples of each class.

    Args:
        examples: pictures by class index, each (H, W, 3) uint8 RGB and square, all of one size.
        counts: number of boxes of each class, which the titles state.
        per_class: number of pictures in a full row.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    side = next((picture.shape[0] for pictures in examples.values() for picture in pictures), 96)
    colors = class_colors(class_names)
    strips = [_make_strip(examples.get(c, ()), per_class, side, colors[c]) for c in range(len(class_names))]
    titles = [
        f"{name}: {_number(count)} box{'' if count == 1 else 'es'}"
        for name, count in zip(class_names, counts, strict=True)
    ]
    columns = 2 if len(strips) > 3 else 1
    return contact_sheet(strips, titles, columns=columns, tile_width=strips[0].shape[1])


def encode_png(picture: Figure | np.ndarray) -> bytes:
    """Encode a figure or an (H, W, 3) uint8 RGB array as the bytes of a PNG file."""
    if isinstance(picture, Figure):
        file = io.BytesIO()
        picture.savefig(file, format="png")
        return file.getvalue()
    return encode_image(picture)


def _make_figure(width: float, height: float) -> Figure:
    # Avoid pyplot, which keeps global state and may need a screen.
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _draw_joint(figure: Figure, axes: Axes, widths: np.ndarray, heights: np.ndarray) -> None:
    extent = (*_log_limits(widths), *_log_limits(heights))
    mesh = axes.hexbin(
        widths,
        heights,
        gridsize=40,
        xscale="log",
        yscale="log",
        extent=tuple(np.log10(extent)),
        mincnt=1,
        bins="log",
        cmap="viridis",
    )
    figure.colorbar(mesh, ax=axes, label="boxes", format=FuncFormatter(lambda value, _: _number(value)))
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _label_log_axis(axes.xaxis)
    _label_log_axis(axes.yaxis)


def _draw_sizes(axes: Axes, sizes: np.ndarray) -> None:
    axes.hist(sizes, np.geomspace(*_log_limits(sizes), 41), color=_BAR_COLOR)
    axes.set_xscale("log")
    _label_log_axis(axes.xaxis)
    # COCO calls boxes small below 32 pixels, large from 96 pixels on, and medium between.
    for limit in (32, 96):
        axes.axvline(limit, color="gray", linestyle=":")
    shares = [np.mean(sizes < 32), np.mean((sizes >= 32) & (sizes < 96)), np.mean(sizes >= 96)]
    names = ("small (< 32)", "medium", "large (≥ 96)")
    lines = [f"{name}: {100 * share:.1f} %" for name, share in zip(names, shares, strict=True)]
    _mark_median(axes, np.median(sizes), f"{np.median(sizes):.0f} pixels", lines)


def _draw_ratios(axes: Axes, ratios: np.ndarray) -> None:
    low, high = _log_limits(np.append(ratios, (0.25, 4.0)))
    axes.hist(ratios, np.geomspace(low, high, 41), color=_BAR_COLOR)
    axes.set_xscale("log")
    ticks = [tick for tick in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}:1" if tick >= 1 else f"1:{1 / tick:g}" for tick in ticks])
    axes.minorticks_off()
    _mark_median(axes, np.median(ratios), f"{np.median(ratios):.2f}", [])


def _label_log_axis(axis: Axis, digits: Sequence[int] = (1, 2, 5)) -> None:
    """Label only numbers that begin with ``digits``, in plain notation, because matplotlib's own labels overlap."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _mark_median(axes: Axes, median: float, text: str, lines: Sequence[str]) -> None:
    axes.axvline(median, color=_MEDIAN_COLOR, label=f"median {text}")
    # Leave room above the bars for the legend.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    for line in lines:
        axes.plot([], [], " ", label=line)
    axes.legend(loc="upper left", fontsize=8, framealpha=1, edgecolor="white", handlelength=1.2)


def _log_limits(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()) / 1.1, float(values.max()) * 1.1


def _join_values(sides: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the values that occur on any side of the split, the most frequent first."""
    totals: Counter[str] = Counter()
    for values in sides.values():
        totals.update(values)
    return sorted(totals, key=lambda value: (-totals[value], value))


def _make_strip(pictures: Sequence[np.ndarray], places: int, side: int, color) -> np.ndarray:
    gap, line = max(2, side // 24), 4
    strip = np.full((side + line, places * (side + gap) - gap, 3), _GRAY, np.uint8)
    strip[:line] = color
    for i, picture in enumerate(pictures[:places]):
        left = i * (side + gap)
        strip[line:, left : left + side] = picture
    return strip


def _finish(axes: Axes, title: str, xlabel: str, ylabel: str = "", grid: str = "") -> None:
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, alpha=0.3)
        axes.set_axisbelow(True)


def _add_legend(figure: Figure, axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _say_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no boxes", ha="center", va="center", transform=axes.transAxes, color="gray")
    axes.set_xticks([])
    axes.set_yticks([])


def _as_labels(names: Sequence[str], size: float) -> dict[str, Any]:
    texts, path = fit_font([_text(name) for name in names])
    return {"labels": texts, "fontproperties": FontProperties(fname=str(path), size=size)}


def _text(name: str) -> str:
    text = drawable(name)
    if len(text) > _MAX_LABEL_LENGTH:
        text = text[: _MAX_LABEL_LENGTH - 1] + "…"
    # Escape dollars: matplotlib reads text between two of them as a formula, and fails if it is not one.
    return text.replace("$", r"\$")


def _number(value: float) -> str:
    return f"{value:,.0f}"
