"""Charts and example crops that show what a checked data set holds."""

from parking.data.checking.examples import choose_examples, cut_examples
from parking.data.checking.overview import Overview, keep_frequent
from parking.visualization.data_charts import (
    draw_class_examples,
    encode_png,
    plot_box_sizes,
    plot_boxes_per_image,
    plot_class_counts,
    plot_conditions,
)

from .conditions import TITLES, get_sequence_key

PICTURES = ("class_counts.png", "box_sizes.png", "boxes_per_image.png", "conditions.png", "class_examples.png")
_EXAMPLES_PER_CLASS, _EXAMPLE_SIDE = 8, 112
# Charts show at most this many classes: as many as Objects365, a large data set, has.
_MAX_CLASSES = 365


def draw_pictures(overview: Overview, num_workers: int) -> dict[str, bytes]:
    """Draw the :data:`PICTURES`, only with the most frequent classes; return the bytes of each PNG by file name."""
    overview = keep_frequent(overview, _MAX_CLASSES)
    names, sides = overview.class_names, overview.sides
    pictures = [
        plot_class_counts(names, {side.name: side.class_counts.tolist() for side in sides}),
        plot_box_sizes(overview.boxes[:, 2:]),
        plot_boxes_per_image({side.name: side.boxes_per_image for side in sides}),
        plot_conditions({title: {side.name: side.conditions[key] for side in sides} for key, title in TITLES.items()}),
    ]
    if names:
        examples = choose_examples(
            overview.classes,
            overview.boxes,
            overview.image_files,
            sequence_of=get_sequence_key,
            num_classes=len(names),
            per_class=_EXAMPLES_PER_CLASS,
        )
        pictures.append(
            draw_class_examples(
                names,
                cut_examples(examples, overview.exif_orientations, side=_EXAMPLE_SIDE, num_workers=num_workers),
                sum(side.class_counts for side in sides).tolist(),
                per_class=_EXAMPLES_PER_CLASS,
            )
        )
    return {name: encode_png(picture) for name, picture in zip(PICTURES, pictures, strict=False)}
