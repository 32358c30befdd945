"""The 14 classes as low-poly models, and what else stands in a parking lot."""

from collections.abc import Callable

import numpy as np

from parking.synthetic.mesh import Mesh
from parking.synthetic.shapes.cars import build_sedan, build_suv, build_taxi, build_van
from parking.synthetic.shapes.large import build_bus, build_school_bus, build_truck
from parking.synthetic.shapes.people import build_adult, build_child
from parking.synthetic.shapes.pushed import build_cart, build_stroller
from parking.synthetic.shapes.two_wheelers import build_bicycle, build_kickboard, build_motorcycle

#: Width, length and height in metres, the room that planning keeps free for an object of the class.
DIMENSIONS: dict[str, tuple[float, float, float]] = {
    "sedan": (1.95, 4.80, 1.46),
    "SUV": (2.05, 4.65, 1.80),
    "van": (2.05, 5.25, 2.02),
    "bus": (2.65, 9.75, 3.10),
    "school bus": (2.25, 6.95, 2.75),
    "truck": (1.95, 5.15, 2.30),
    "taxi": (1.95, 4.80, 1.72),
    "adult": (0.55, 0.60, 1.72),
    "child": (0.45, 0.50, 1.10),
    "motorcycle": (0.75, 1.90, 1.33),
    "kickboard": (0.58, 1.18, 1.18),
    "bicycle": (0.60, 1.72, 1.02),
    "stroller": (0.58, 1.00, 1.06),
    "cart": (0.62, 1.05, 1.04),
}

PEOPLE = ("adult", "child")

_BUILDERS: dict[str, Callable[..., Mesh]] = {
    "sedan": build_sedan,
    "SUV": build_suv,
    "van": build_van,
    "bus": build_bus,
    "school bus": build_school_bus,
    "truck": build_truck,
    "taxi": build_taxi,
    "adult": build_adult,
    "child": build_child,
    "motorcycle": build_motorcycle,
    "kickboard": build_kickboard,
    "bicycle": build_bicycle,
    "stroller": build_stroller,
    "cart": build_cart,
}


def build_shape(class_name: str, look: int, phase: float = 0.0) -> Mesh:
    """The model of a class; `look` seeds its colours and variants, `phase` (turns) moves the limbs of people."""
    rng = np.random.default_rng(look)
    if class_name in PEOPLE:
        return _BUILDERS[class_name](rng, phase)
    return _BUILDERS[class_name](rng)
