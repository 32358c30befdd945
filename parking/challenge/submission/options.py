"""The options of a submission, from a command line or a config."""

import argparse
from collections.abc import Iterable, Mapping

from parking.utils.class_names import find_classes
from parking.utils.cli import at_least
from parking.utils.errors import UserError
from parking.utils.text import printable


def _parse_megabytes(text: str) -> int:
    """Convert a size in MB (10^6 bytes) to bytes."""
    try:
        size = int(float(text) * 1e6)
    except (ValueError, OverflowError):
        size = 0
    # The limit must be at least 2 bytes, the size of an empty JSON list.
    if size < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of megabytes above 0")
    return size


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the challenge's limits, which are parsed to ``args.max_bytes`` and ``args.max_per_image``."""
    parser.add_argument(
        "--max-size-mb",
        type=_parse_megabytes,
        default="20",
        dest="max_bytes",
        metavar="MB",
        help="limit of the file's size in MB of 10^6 bytes (20)",
    )
    parser.add_argument(
        "--max-per-image", type=at_least(1), default=50, metavar="N", help="limit of boxes per image (50)"
    )


def parse_class_floors(texts: Iterable[str | int], classes: Mapping[str, int], *, option: str) -> dict[int, int]:
    """Parse class floors: how many of a class's best boxes enter the submission before all others, by category id.

    Args:
        texts: "stroller=500" for one class, "500" or the number 500 for all classes that are not named; in any order.
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
                f"{next(iter(classes), 'CLASS')}=500, or N for all classes."
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
