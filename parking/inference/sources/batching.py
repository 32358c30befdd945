"""Divide the images of an inference into batches; needs neither torch nor detectron2."""

from collections.abc import Sequence

from parking.data.image_io import compute_resized_sides


def plan_batches(images: Sequence[dict], *, size: int, size_divisibility: int, batch_size: int) -> list[list[dict]]:
    """Divide ``images`` into batches; all images of a batch have the same size once they are padded.

    If an image were padded to the size of another image in its batch, its scores would depend on that image: scores
    move by 0.01 if the width changes. The batches depend on the arguments alone, so that an interrupted run continues
    with the same batches.

    Args:
        images: dicts with ``height`` and ``width`` if they are known; an image of unknown size is a batch by itself.
        size: pixels to which the longer side of an image is resized.
        size_divisibility: the sides are padded to multiples of this.
        batch_size: largest number of images in a batch.

    Returns:
        Batches of ``images``, in the order of their first images.
    """
    batches: list[list[dict]] = []
    open_batches: dict[tuple[int, int], list[dict]] = {}
    for image in images:
        if not image.keys() >= {"height", "width"}:
            batches.append([image])
            continue
        resized = compute_resized_sides(image["height"], image["width"], size, size)
        shape = tuple(-(-side // size_divisibility) for side in resized)
        if len(open_batches.get(shape, ())) in (0, batch_size):
            open_batches[shape] = []
            batches.append(open_batches[shape])
        open_batches[shape].append(image)
    return batches
