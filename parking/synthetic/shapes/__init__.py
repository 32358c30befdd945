"""The 14 classes as low-poly models."""

from collections.abc import Callable

import numpy as np

from parking.synthetic.mesh import Mesh
from parking.synthetic.shapes.cars import build_sedan, build_suv, build_taxi, build_van
from parking.synthetic.shapes.large import build_bus, build_school_bus, build_truck
from parking.synthetic.shapes.people import build_adult, build_child
from parking.synthetic.shapes.pushed import build_cart, build_stroller
from parking.synthetic.shapes.two_wheelers import build_bicycle, build_kickboard, build_motorcycle

#: For each class, its builder and the space that planning keeps free for an object: (width, length, height) in metres.
_SHAPES: dict[str, tuple[Callable[..., Mesh], tuple[float, float, float]]] = {
    "sedan": (build_sedan, (1.95, 4.80, 1.46)),
    "SUV": (build_suv, (2.05, 4.65, 1.80)),
    "van": (build_van, (2.05, 5.25, 2.02)),
    "bus": (build_bus, (2.65, 9.75, 3.10)),
    "school bus": (build_school_bus, (2.25, 6.95, 2.75)),
    "truck": (build_truck, (1.95, 5.15, 2.30)),
    "taxi": (build_taxi, (1.95, 4.80, 1.72)),
    "adult": (build_adult, (0.55, 0.60, 1.72)),
    "child": (build_child, (0.45, 0.50, 1.10)),
    "motorcycle": (build_motorcycle, (0.75, 1.90, 1.33)),
    "kickboard": (build_kickboard, (0.58, 1.18, 1.18)),
    "bicycle": (build_bicycle, (0.60, 1.72, 1.02)),
    "stroller": (build_stroller, (0.58, 1.00, 1.06)),
    "cart": (build_cart, (0.62, 1.05, 1.04)),
}
DIMENSIONS = {name: dimensions for name, (_, dimensions) in _SHAPES.items()}
PEOPLE = ("adult", "child")


def build_shape(class_name: str, look: int, phase: float = 0.0) -> Mesh:
    """Build the 3D mesh of an object of class ``class_name``.

    Args:
        look: seed of the mesh's colours and variants.
        phase: position in a walking step, in turns; moves the limbs of people.
    """
    arguments = (phase,) if class_name in PEOPLE else ()
    return _SHAPES[class_name][0](np.random.default_rng(look), *arguments)
