"""Which images an inference takes together; needs neither torch nor detectron2."""

from collections.abc import Sequence

from parking.data.datasets.sizes import read_headers
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import AUTO, is_applied
from parking.data.image_io import compute_resized_sides


def plan_batches(images: Sequence[dict], *, size: int, size_divisibility: int, batch_size: int) -> list[list[dict]]:
    """Divide ``images`` into batches whose images have the same padded shape, each by itself.

    Were an image padded to the size of a neighbour, its scores would depend on it: at another width they move by 0.01.
    The division is a function of the arguments alone, so that a run which was interrupted goes on with the same ones.

    Args:
        images: dicts with ``file_name`` and, where it is known, ``height`` and ``width``, which are otherwise read from
            the files' headers.
        size: long side in pixels that an image is resized to.
        size_divisibility: the sides are padded to multiples of this.
        batch_size: images in a batch, at most.

    Returns:
        Batches of ``images``, in the order of their first ones. Images whose header cannot be read are by themselves.
    """
    batches: list[list[dict]] = []
    open_batches: dict[tuple[int, int], list[dict]] = {}
    for image, sides in zip(images, _find_sizes(images), strict=True):
        if sides is None:
            batches.append([image])
            continue
        resized = compute_resized_sides(*sides, size, size)
        shape = tuple(-(-side // size_divisibility) for side in resized)
        if len(open_batches.get(shape, ())) in (0, batch_size):
            open_batches[shape] = []
            batches.append(open_batches[shape])
        open_batches[shape].append(image)
    return batches


def _find_sizes(images) -> list[tuple[int, int] | None]:
    """(height, width) of each image; None if it cannot be read."""
    sizes = {
        i: (image["height"], image["width"]) for i, image in enumerate(images) if image.keys() >= {"height", "width"}
    }
    unknown = [i for i in range(len(images)) if i not in sizes]
    for i, header in zip(unknown, read_headers([images[i]["file_name"] for i in unknown]), strict=True):
        if isinstance(header, Header):
            policy = images[i].get("exif_orientation", AUTO)
            is_upright = is_applied(policy, header.orientation, header.stored_size, None)
            sizes[i] = header.get_size(is_upright=is_upright)
    return [sizes.get(i) for i in range(len(images))]
