"""The error about bytes that cannot be used as a picture, and functions that make such errors."""


class ImageProblem(Exception):
    """The bytes cannot be used as a picture.

    Attributes:
        kind: a key of ``KINDS`` of :mod:`parking.data.checking.findings`.
    """

    def __init__(self, kind: str, reason: str):
        """Make the error; ``reason`` is a clause for people, such as "the file is cut off"."""
        super().__init__(reason)
        self.kind = kind


def damaged(reason: str = "") -> ImageProblem:
    """Return the error for a damaged picture of a known format; ``reason`` is what a decoder says."""
    return ImageProblem("image_unreadable", "it is damaged" + (f" ({reason.strip().rstrip('.')})" if reason else ""))


def cut_off() -> ImageProblem:
    return ImageProblem("image_truncated", "the file is cut off")


def unsupported(what: str, advice: str = "convert it to 8-bit PNG or JPEG") -> ImageProblem:
    """Return the error for an intact file of an unsupported kind; ``what`` is the kind, such as "a HEIC picture"."""
    return ImageProblem("image_unsupported", f"it is {what}; {advice}")
