"""Drawn frames: boxes against the mask, light, weather, likeness of neighbours."""

from dataclasses import replace

import numpy as np
import pytest

from parking.challenge.classes import CLASS_NAMES
from parking.synthetic.camera import Camera
from parking.synthetic.lighting import Lighting
from parking.synthetic.planning import plan_sequences
from parking.synthetic.raster import Pose, render
from parking.synthetic.scene import render_sequence, tight_boxes
from parking.synthetic.shapes import DIMENSIONS, build_shape

SIZE = (480, 270)
DAYLIGHT = Lighting((0.6, 0.6, 0.6), (90, 140, 210), (200, 220, 240), (0.5, 0.5, 0.5), (0.0, -0.6, 0.8))


@pytest.fixture(scope="module")
def plans():
    return list(plan_sequences(160, SIZE, seed=3, split=0, balanced=True))


def first_frame(plan):
    return next(iter(render_sequence(plan)))


def in_conditions(plan, weather="clear", daytime="day", location="outdoor"):
    return replace(plan, name=replace(plan.name, weather=weather, daytime=daytime, location=location))


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_shapes_fill_the_room_they_announce(class_name):
    width, length, height = DIMENSIONS[class_name]
    for look in range(8):
        mesh = build_shape(class_name, look, phase=look / 8)
        reach = np.repeat(mesh.radii.max(1), mesh.counts)[:, None]
        low, high = (mesh.vertices - reach).min(0), (mesh.vertices + reach).max(0)
        assert low[2] > -0.06
        assert (high - low <= np.array([1.35 * width, 1.35 * length, 1.18 * height]) + 0.3).all()
        assert (high - low >= 0.6 * np.array([width, length, height])).all() or class_name in ("adult", "child")


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_shapes_are_shaded(class_name):
    length = DIMENSIONS[class_name][1]
    camera = Camera((0.0, 0.0, 1.4), 0.0, 0.1, SIZE)
    sprite = render(build_shape(class_name, 1), Pose(0.0, length + 2.5, 0.7), camera, DAYLIGHT)
    solid = sprite.rgb[sprite.alpha == 255]
    assert len(np.unique(solid, axis=0)) >= 10
    assert 0 < (sprite.alpha >= 128).mean() < 0.95


def test_boxes_are_the_hull_of_the_visible_pixels(plans):
    checked = 0
    for plan in plans[:8]:
        frame = first_frame(plan)
        for index, (x, y, width, height) in frame.boxes.items():
            rows, columns = np.nonzero(frame.mask == index + 1)
            hull = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.subtract(hull, (x, y, x + width, y + height))).max() <= 1
            checked += 1
    assert checked > 20


def test_the_mask_marks_where_the_objects_are_painted(plans):
    """Without its objects a scene differs from itself only near them (their pixels, shadows and reflections)."""
    plan = in_conditions(max(plans, key=lambda plan: len(plan.objects)), weather="cloudy")
    full, bare = first_frame(plan), first_frame(replace(plan, objects=()))
    assert not bare.boxes and not bare.mask.any()
    changed = np.abs(full.image.astype(int) - bare.image).max(2) > 12
    assert changed[full.mask > 0].mean() > 0.8
    horizon = int(plan.camera(0).horizon)
    above = np.s_[: horizon - 4]
    # There is no shadow above the ground: only the pixels of objects change there, and their smooth edge of one pixel.
    near = np.zeros_like(changed)
    ys, xs = np.nonzero(full.mask)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near[np.clip(ys + dy, 0, SIZE[1] - 1), np.clip(xs + dx, 0, SIZE[0] - 1)] = True
    assert (changed & ~near)[above].sum() == 0


def test_an_object_of_which_too_little_is_visible_has_no_box():
    mask = np.zeros((10, 20), np.uint8)
    mask[2:5, 3:8] = 1
    mask[6:9, 10:15] = 2
    # 15 visible pixels: 15 / 100 is just enough, 15 / 101 is not.
    assert tight_boxes(mask, (100.0, 101.0)) == {0: (3, 2, 5, 3)}
    assert tight_boxes(mask, (15.0, 15.0, 15.0)) == {0: (3, 2, 5, 3), 1: (10, 6, 5, 3)}


def test_the_border_does_not_change_an_object_s_full_area():
    """A taller picture by the same lens shows all of a car that the lower border of the smaller one cuts off."""
    low, tall = (Camera((0.0, 0.0, 1.4), 0.0, 0.0, (SIZE[0], height)) for height in (SIZE[1], 3 * SIZE[1]))
    mesh, pose = build_shape("sedan", 5), Pose(-0.3, 4.2, 0.1)
    cut, whole = render(mesh, pose, low, DAYLIGHT), render(mesh, pose, tall, DAYLIGHT)
    assert whole.full_area == (whole.alpha >= 128).sum()
    assert (cut.alpha >= 128).sum() < 0.9 * cut.full_area
    np.testing.assert_allclose(cut.full_area, whole.full_area, rtol=0.02)


def test_night_is_darker_than_day(plans):
    for plan in plans[:3]:
        for weather in ("clear", "rain", "snow"):
            day, night = (first_frame(in_conditions(plan, weather, time)).image.mean() for time in ("day", "night"))
            assert night < 0.65 * day


def test_rain_and_snow_can_be_seen(plans):
    for plan in plans[:2]:
        weathers = ("cloudy", "rain", "snow")
        clear, rain, snow = (first_frame(in_conditions(plan, weather)).image.mean(2) for weather in weathers)
        assert thin_streaks(rain) > 2 * thin_streaks(clear)
        lower = np.s_[SIZE[1] * 2 // 3 :]
        assert snow[lower].mean() > 1.2 * clear[lower].mean()


def thin_streaks(gray) -> float:
    """Share of pixels that are clearly brighter than the pixels two columns to the left and right."""
    return float((gray[:, 2:-2] - np.maximum(gray[:, :-4], gray[:, 4:]) > 10).mean())


def test_neighbouring_frames_nearly_repeat(plans):
    clear = [in_conditions(plan, "cloudy") for plan in plans if plan.objects][:3]
    frames = [[frame.image.astype(int) for frame, _ in zip(render_sequence(p), range(2), strict=False)] for p in clear]
    within = [np.abs(a - b).mean() for a, b in frames]
    between = [np.abs(frames[k][0] - frames[k - 1][0]).mean() for k in range(3)]
    assert 0 < max(within) < 0.5 * min(between)
