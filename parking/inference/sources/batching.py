"""Which images an inference takes together; needs neither torch nor detectron2."""

from collections.abc import Sequence

from parking.data.image_io import compute_resized_sides


def plan_batches(images: Sequence[dict], *, size: int, size_divisibility: int, batch_size: int) -> list[list[dict]]:
    """Divide ``images`` into batches; all images of a batch have the same size once they are padded.

    Were an image padded to the size of a neighbour, its scores would depend on it: at another width they move by 0.01.
    The division is a function of the arguments alone, so that a run which was interrupted goes on with the same ones.

    Args:
        images: dicts with ``height`` and ``width``, as far as they are known; an image without is a batch by itself.
        size: long side in pixels that an image is resized to.
        size_divisibility: the sides are padded to multiples of this.
        batch_size: images in a batch, at most.

    Returns:
        Batches of ``images``, in the order of their first ones.
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
