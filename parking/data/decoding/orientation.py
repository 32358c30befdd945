"""Turn pictures as their EXIF orientation says, and decide whether to do so."""

import numpy as np

#: Values of INPUT.EXIF_ORIENTATION.
AUTO, APPLY, IGNORE = "auto", "apply", "ignore"

Size = tuple[int, int]


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture (H, W, ...) upright; the result is contiguous, and the same array if nothing changes."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def turn_size(size: Size, orientation: int) -> Size:
    """Return height and width that a picture with the stored ``size`` has after :func:`turn`."""
    return size[::-1] if orientation in (5, 6, 7, 8) else size


def is_applied(policy: str, orientation: int, stored: Size, stated: Size | None) -> bool | None:
    """Return whether a picture is turned upright under INPUT.EXIF_ORIENTATION; every tool decides by this function.

    Args:
        policy: AUTO, APPLY or IGNORE.
        orientation: the picture's EXIF orientation, 1..8.
        stored: height and width of the picture as stored.
        stated: height and width that a json or an image list states; None: neither states a size.

    Returns:
        None if "auto" cannot decide, because the stated size fits both the stored and the upright picture, or neither.
    """
    if policy != AUTO or orientation == 1:
        return policy == APPLY
    if stated is None:
        return True
    fits_stored, fits_upright = stated == stored, stated == turn_size(stored, orientation)
    return fits_upright if fits_stored != fits_upright else None
