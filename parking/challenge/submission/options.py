"""The options of a submission, checked and converted from a command line or a config."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import printable

from .selection import SPACINGS


class SubmissionOptions(NamedTuple):
    """Arguments of :func:`parking.challenge.submission.selection.write_submission`, checked."""

    max_bytes: int
    max_per_image: int
    class_floors: Mapping[int, int]
    spacing: str


class OptionNames(NamedTuple):
    """The flags or config keys in which the user gave the options, for errors."""

    max_size_mb: str
    max_per_image: str
    class_floors: str
    spacing: str


def make_submission_options(
    *,
    max_size_mb: float,
    max_per_image: int,
    class_floors: Iterable[str | int],
    spacing: str,
    classes: Mapping[str, int],
    names: OptionNames,
) -> SubmissionOptions:
    """Check and convert the options of a submission.

    Args:
        max_size_mb: largest size of the file in MB of 10^6 bytes.
        class_floors: see :func:`parse_class_floors`.
        classes: category id by class name.

    Raises:
        UserError: an option is wrong; the message names it.
    """
    # An empty list takes two bytes.
    if not math.isfinite(max_size_mb) or int(max_size_mb * 1e6) < 2:
        raise UserError(f"{names.max_size_mb} is {max_size_mb}; it must be a number of megabytes above 0.")
    if max_per_image < 1:
        raise UserError(f"{names.max_per_image} is {max_per_image}; it must be at least 1.")
    if spacing not in SPACINGS:
        raise UserError(f"{names.spacing} is {spacing!r}; choose one of {', '.join(SPACINGS)}.")
    return SubmissionOptions(
        max_bytes=int(max_size_mb * 1e6),
        max_per_image=max_per_image,
        class_floors=parse_class_floors(class_floors, classes, option=names.class_floors),
        spacing=spacing,
    )


def parse_class_floors(texts: Iterable[str | int], classes: Mapping[str, int], *, option: str) -> dict[int, int]:
    """The floors: number of boxes by category id.

    Args:
        texts: "stroller=500" for one class, or "500" (or 500) for all classes that are not named, in any order.
        classes: category id by class name.
        option: name of the option, for errors.

    Raises:
        UserError: a class is unknown or occurs twice, or a floor is not a whole number of 0 or more.
    """
    floors: dict[str, int] = {}
    for text in map(str, texts):
        name, equals, number = text.rpartition("=")
        if not number.isascii() or not number.isdecimal():
            raise UserError(
                f"{option} {text!r}: {number!r} is not a whole number of 0 or more; write CLASS=N, as in "
                f"{_get_example(classes)}=500, or N for all classes."
            )
        if equals:
            (found,) = find_classes([name], classes)
            if found is None:
                known = printable(", ".join(classes))
                raise UserError(f"{option} {text!r}: there is no class {name!r}; choose one of {known}.")
            name = found
        if name in floors:
            what = f"the class {name!r} has" if name else "all classes have"
            raise UserError(f"{option} {text!r}: {what} a floor already; give only one.")
        floors[name] = int(number)
    for_all = floors.pop("", 0)
    return {category_id: floors.get(name, for_all) for name, category_id in classes.items()}


def _get_example(classes: Mapping[str, int]) -> str:
    return "stroller" if "stroller" in classes else next(iter(classes), "CLASS")
