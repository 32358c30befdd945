"""Adult and child: figures of rods and balls, walking or standing."""

import numpy as np

from parking.synthetic.mesh import Mesh, MeshBuilder, scaled

SKIN = ((236, 196, 164), (224, 178, 144), (206, 160, 126))
HAIR = ((30, 24, 22), (44, 34, 28), (70, 52, 40))
SOBER = ((46, 52, 66), (84, 80, 78), (116, 98, 78), (40, 62, 54), (150, 148, 142), (96, 36, 42), (60, 84, 120))
TROUSERS = ((34, 38, 50), (60, 62, 68), (52, 70, 104), (120, 106, 86))
BRIGHT = ((250, 84, 70), (255, 206, 40), (66, 184, 245), (120, 214, 74), (255, 128, 190), (252, 146, 40))
BRIGHT_TROUSERS = ((66, 116, 206), (150, 92, 190), (66, 150, 132), (226, 96, 110))


def build_adult(rng: np.random.Generator, phase: float) -> Mesh:
    """Build an adult; `phase` is the position in a walking step, in turns."""
    look = {"top": SOBER[rng.integers(len(SOBER))], "trousers": TROUSERS[rng.integers(len(TROUSERS))]}
    coat = rng.random() < 0.4
    bag = rng.random() < 0.35
    return _figure(rng, phase, height=rng.uniform(1.62, 1.82), head=0.066, girth=1.0, coat=coat, pack=bag, **look)


def build_child(rng: np.random.Generator, phase: float) -> Mesh:
    """Build a child: smaller than an adult, with a larger head, bright clothes, and often a cap and a satchel."""
    look = {"top": BRIGHT[rng.integers(len(BRIGHT))], "trousers": BRIGHT_TROUSERS[rng.integers(len(BRIGHT_TROUSERS))]}
    cap = (255, 214, 32) if rng.random() < 0.6 else None
    return _figure(rng, phase, height=rng.uniform(1.0, 1.2), head=0.112, girth=1.22, pack=True, cap=cap, **look)


def _figure(rng, phase, height, head, girth, top, trousers, coat=False, pack=False, cap=None) -> Mesh:
    """Build a person.

    Args:
        head: radius of the head as a share of the height.
        girth: thickness of body and limbs relative to an adult's.
    """
    mesh = MeshBuilder()
    skin, hair = SKIN[rng.integers(len(SKIN))], HAIR[rng.integers(len(HAIR))]
    stride = rng.uniform(0.3, 0.52) if rng.random() < 0.8 else 0.06
    swing = stride * np.sin(2 * np.pi * phase)
    thick = 0.043 * height * girth
    head_radius = head * height
    shoulder = height * (0.99 - 2 * head) - 0.02 * height
    hip = shoulder * 0.6
    for side in (-1, 1):
        _leg(mesh, side, side * swing, hip, thick, trousers)
    spread = thick * 1.9
    mesh.part(1)
    _torso(mesh, hip, shoulder, thick, spread, top, coat)
    for side in (-1, 1):
        _arm(mesh, side, -side * swing, shoulder, hip, thick * 0.62, spread, top, skin)
    mesh.tube((0, 0, shoulder - 0.02), (0, 0.01, shoulder + head_radius * 0.6), thick * 0.5, skin)
    centre = np.array([0, 0.015, height - head_radius * 1.02])
    mesh.ball(centre, head_radius, skin)
    mesh.ball(centre + (0, -0.28 * head_radius, 0.26 * head_radius), head_radius * 0.98, hair)
    if cap:
        mesh.ball(centre + (0, 0, 0.35 * head_radius), head_radius * 0.95, cap)
        brim = centre + (0, head_radius * 0.9, 0.25 * head_radius)
        mesh.tube(brim - (head_radius * 0.5, 0, 0), brim + (head_radius * 0.5, 0, 0), head_radius * 0.2, cap)
    if pack:
        colour = ((200, 44, 50), (40, 90, 190), (44, 44, 48), (246, 130, 32))[rng.integers(4)]
        low, high = hip + (shoulder - hip) * 0.15, shoulder - 0.03
        size = thick * (1.5 if cap or girth > 1 else 1.2)
        mesh.tube((0, -thick * 2.0, low), (0, -thick * 2.0, high), size, colour)
    return mesh.build()


def _leg(mesh, side, swing, hip, thick, colour):
    x = side * thick * 1.05
    upper = hip * 0.5
    knee = np.array([x, np.sin(swing) * upper + 0.02, hip - np.cos(swing) * upper])
    bend = swing - (0.5 * max(0.0, -swing) + 0.04)
    ankle = knee + (0, np.sin(bend) * upper * 0.86, -np.cos(bend) * upper * 0.86)
    mesh.tube((x, 0, hip), knee, thick * 1.12, colour, thick * 0.86)
    mesh.tube(knee, ankle, thick * 0.84, scaled(colour, 0.94), thick * 0.6)
    foot = ankle + (0, 0, -0.02)
    mesh.tube(foot - (0, thick * 0.3, 0), foot + (0, thick * 1.9, -thick * 0.2), thick * 0.68, (40, 36, 36))


def _torso(mesh, hip, shoulder, thick, spread, colour, coat):
    """Add a body of stacked ovals, wide at the shoulders and narrow at the waist."""
    hem = hip * (0.62 if coat else 0.94)
    sections = (
        (hem, 1.42 if coat else 1.12, 1.15),
        (hip + (shoulder - hip) * 0.35, 1.08, 0.95),
        (shoulder - thick, 1.32, 1.1),
    )
    angle = np.arange(10) * 2 * np.pi / 10
    rings = [
        (np.column_stack([np.cos(angle) * spread * w * 0.92, np.sin(angle) * thick * 1.42 * d]), z)
        for z, w, d in sections
    ]
    rings.append((np.column_stack([np.cos(angle) * spread * 0.75, np.sin(angle) * thick]), shoulder + thick * 0.25))
    mesh.stack(rings, colour)


def _arm(mesh, side, swing, shoulder, hip, thick, spread, colour, skin):
    start = np.array([side * spread * 1.22, 0, shoulder - thick * 1.2])
    upper = (shoulder - hip) * 0.55
    elbow = start + (side * 0.04, np.sin(swing) * upper, -np.cos(swing) * upper)
    bend = swing + 0.25
    wrist = elbow + (0, np.sin(bend) * upper * 0.95, -np.cos(bend) * upper * 0.95)
    mesh.tube(start, elbow, thick * 1.15, colour, thick)
    mesh.tube(elbow, wrist, thick, scaled(colour, 0.94), thick * 0.8)
    mesh.ball(wrist, thick * 0.95, skin)
