"""The pinhole camera over the ground plane."""

import numpy as np

from parking.synthetic.camera import NEAR, Camera

LEVEL = Camera((0.0, 0.0, 1.5), yaw=0.0, pitch=0.0, size=(100, 60))


def test_projection_by_hand():
    # Focal length 0.6 * 100 = 60. A point 2 m right, 10 m ahead, on the ground: x = 50 + 60 * 2 / 10 = 62,
    # y = 30 + 60 * 1.5 / 10 = 39.
    pixels, depth = LEVEL.project(np.array([[2.0, 10.0, 0.0]]))
    np.testing.assert_allclose(pixels, [[62.0, 39.0]])
    np.testing.assert_allclose(depth, [10.0])
    assert LEVEL.horizon == 30.0


def test_looking_down_moves_the_horizon_up_and_turning_left_moves_things_right():
    assert Camera((0, 0, 1.5), 0.0, 0.1, (100, 60)).horizon < 30
    left = Camera((0, 0, 1.5), 0.2, 0.0, (100, 60))
    assert left.project(np.array([[0.0, 10.0, 1.5]]))[0][0, 0] > 50


def test_ground_homography_inverts_projection():
    camera = Camera((1.0, -2.0, 1.4), 0.3, 0.12, (960, 540))
    ground = np.array([[0.5, 6.0, 0.0], [-3.0, 11.0, 0.0]])
    pixels, _ = camera.project(ground)
    back = np.column_stack([pixels, np.ones(2)]) @ camera.ground_homography().T
    np.testing.assert_allclose(back[:, :2] / back[:, 2:], ground[:, :2])


def test_polygons_are_cut_at_the_near_plane():
    strip = np.array([[-1.0, -5.0, 0.0], [1.0, -5.0, 0.0], [1.0, 5.0, 0.0], [-1.0, 5.0, 0.0]])
    pixels = LEVEL.project_polygon(strip)
    assert len(pixels) == 4
    np.testing.assert_allclose(pixels[:, 1].max(), 30 + 60 * 1.5 / NEAR)
    assert len(LEVEL.project_polygon(strip - (0, 10, 0))) == 0
