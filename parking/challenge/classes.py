"""The challenge's 14 classes; needs neither torch nor detectron2."""

from collections.abc import Iterable

from parking.utils.errors import UserError

#: English names; the category id in ``Train.json`` and in a submission is the index plus one.
CLASS_NAMES = (
    "sedan",
    "SUV",
    "van",
    "bus",
    "school bus",
    "truck",
    "taxi",
    "adult",
    "child",
    "motorcycle",
    "kickboard",
    "bicycle",
    "stroller",
    "cart",
)

#: Korean names, in the same order.
CLASS_NAMES_KO = (
    "세단",
    "SUV",
    "승합차",
    "버스",
    "학원차량",
    "트럭",
    "택시",
    "성인",
    "어린이",
    "오토바이",
    "전동킥보드",
    "자전거",
    "유모차",
    "쇼핑카트",
)

#: Drawing colours, RGB 0..255, in the same order: related classes have related hues.
CLASS_COLORS = (
    (31, 119, 180),
    (23, 190, 207),
    (57, 59, 200),
    (214, 39, 40),
    (255, 187, 0),
    (140, 86, 75),
    (255, 127, 14),
    (44, 160, 44),
    (152, 223, 38),
    (148, 103, 189),
    (227, 119, 194),
    (197, 90, 240),
    (0, 200, 150),
    (188, 189, 34),
)


def translate_names(class_names: Iterable[str], *, option: str) -> list[str]:
    """Translate names of the challenge's classes to Korean.

    Raises:
        UserError: a name is not one of the challenge's classes; the message names ``option``.
    """
    translation = dict(zip(CLASS_NAMES, CLASS_NAMES_KO, strict=True))
    class_names = list(class_names)
    unknown = [name for name in class_names if name not in translation]
    if unknown:
        raise UserError(
            f"{option}: there is no Korean name for the class {unknown[0]!r} of these weights, only for the "
            f"challenge's classes; leave {option} out."
        )
    return [translation[name] for name in class_names]
