"""Ground rectangles: overlap and who hides whom."""

import numpy as np
import pytest

from parking.synthetic.layout import footprint, hides, make_lot, overlap, painters_order

EYE = np.array([0.0, 0.0])


def test_footprint_turns_counter_clockwise():
    # Heading +y turned by 90 degrees points to -x: 4 m along x, 2 m along y.
    corners = footprint(10.0, 5.0, np.pi / 2, width=2.0, length=4.0)
    np.testing.assert_allclose(corners.min(0), (8.0, 4.0))
    np.testing.assert_allclose(corners.max(0), (12.0, 6.0))


def test_overlap():
    one = footprint(0, 0, 0, 2, 2)
    assert overlap(one, footprint(1.9, 0, 0, 2, 2))
    assert not overlap(one, footprint(2.1, 0, 0, 2, 2))
    # Turned by 45 degrees the corner reaches 2.4 - sqrt(2) = 0.986 < 1 from the middle.
    assert overlap(one, footprint(2.4, 0, np.pi / 4, 2, 2))
    assert not overlap(one, footprint(2.45, 0, np.pi / 4, 2, 2))


def test_a_long_bus_behind_a_person_is_drawn_first_although_its_middle_may_be_nearer():
    bus = footprint(0.0, 8.0, np.pi / 2, width=2.5, length=9.6)
    person = footprint(4.6, 6.4, 0.0, width=0.5, length=0.5)
    beyond = footprint(0.0, 12.0, 0.0, width=2.0, length=4.6)
    assert hides(person, bus, EYE) and not hides(bus, person, EYE)
    assert painters_order([person, beyond, bus], EYE) == [1, 2, 0]


@pytest.mark.parametrize("kind", ["facing", "along"])
def test_stalls_do_not_share_ground(kind):
    lot = make_lot(np.random.default_rng(0), kind)
    rooms = [footprint(x, y, yaw, 2.4, 4.9) for x, y, yaw, _ in lot.stalls]
    assert not any(overlap(a, b) for k, a in enumerate(rooms) for b in rooms[:k])
