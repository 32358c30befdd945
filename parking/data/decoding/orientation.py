"""Turning pictures as EXIF's orientation says, and deciding whether to."""

from collections.abc import Iterable

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
    """Height and width of the upright picture."""
    return size[::-1] if orientation in (5, 6, 7, 8) else size


def is_applied(policy: str, orientation: int, stored: Size, stated: Size | None) -> bool | None:
    """Whether a picture is turned upright: the one rule of ``INPUT.EXIF_ORIENTATION`` for every tool.

    Args:
        policy: AUTO, APPLY or IGNORE.
        orientation: of the picture, 1..8.
        stored: its height and width as stored.
        stated: height and width that a json or an image list states; None: nothing does.

    Returns:
        None where "auto" cannot tell: the sizes of the stored and the upright picture are both the stated one, or both
        are not.
    """
    if policy != AUTO or orientation == 1:
        return policy == APPLY
    if stated is None:
        return True
    fits_stored, fits_upright = stated == stored, stated == turn_size(stored, orientation)
    return fits_upright if fits_stored != fits_upright else None


def choose_for_ambiguous(decisions: Iterable[bool | None]) -> str:
    """Return "apply" or "ignore" for the pictures of a json for which :func:`is_applied` cannot tell.

    It is what all other pictures of the json agree on; "ignore" if they do not agree.

    Args:
        decisions: of :func:`is_applied`, for the pictures with an orientation whose size is stated.
    """
    known = {decision for decision in decisions if decision is not None}
    return APPLY if known == {True} else IGNORE
