"""The challenge's 14 classes; needs neither torch nor detectron2."""

from collections.abc import Iterable

from parking.utils.errors import UserError

# English name, Korean name, and drawing colour (RGB 0..255); related classes have related hues.
_CLASSES = (
    ("sedan", "세단", (31, 119, 180)),
    ("SUV", "SUV", (23, 190, 207)),
    ("van", "승합차", (57, 59, 200)),
    ("bus", "버스", (214, 39, 40)),
    ("school bus", "학원차량", (255, 187, 0)),
    ("truck", "트럭", (140, 86, 75)),
    ("taxi", "택시", (255, 127, 14)),
    ("adult", "성인", (44, 160, 44)),
    ("child", "어린이", (152, 223, 38)),
    ("motorcycle", "오토바이", (148, 103, 189)),
    ("kickboard", "전동킥보드", (227, 119, 194)),
    ("bicycle", "자전거", (197, 90, 240)),
    ("stroller", "유모차", (0, 200, 150)),
    ("cart", "쇼핑카트", (188, 189, 34)),
)
#: The category id in ``Train.json`` and in a submission is the index of the class plus one.
CLASS_NAMES, CLASS_NAMES_KO, CLASS_COLORS = zip(*_CLASSES, strict=True)


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
