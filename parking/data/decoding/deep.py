"""Convert pictures of 16 bits a channel to 8 bits."""

import numpy as np

from parking.data.decoding.problem import unsupported

# If all values are below this, they probably come from a camera of at most 14 bits, and a picture of their upper 8 bits
# would be nearly black.
_DARKEST = 1 << 14


def narrow(values: np.ndarray, largest: int | None = None) -> np.ndarray:
    """Convert uint16 ``values`` to uint8; the result has the same shape and is contiguous.

    Args:
        largest: what the file states as the largest possible value, which becomes 255; None: it states nothing, and
            the upper 8 of the 16 bits are kept.

    Raises:
        ImageProblem: nothing is stated, and all values are so small that the picture would be nearly black. A dark
            picture of 8 bits whose values were multiplied by 256 or 257 is accepted.
    """
    top = int(values.max(initial=0))
    if largest is not None and largest < 65535 and top <= largest:
        return ((values.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)
    if largest is None and 0 < top < _DARKEST and (values % 257).any() and (values & 255).any():
        raise unsupported(
            f"a picture of 16 bits a channel whose values only reach {top}, so that its 8-bit version is nearly black",
            "spread its values over all 16 bits, or convert it to 8-bit PNG or JPEG",
        )
    return np.ascontiguousarray(values >> 8).astype(np.uint8)
