import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from parking.engine.hooks.pictures import PictureHook, draw_samples
from parking.utils.errors import UserError
from parking.visualization import fonts
from parking.visualization.colors import class_colors

CLASSES = ["cat", "dog"]
CAT, DOG = class_colors(CLASSES)


def sample(*boxes, name="folder/a.png", size=(120, 240)):
    """Boxes are (x1, y1, x2, y2, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    instances = Instances(size)
    instances.gt_boxes = Boxes(table[:, :4])
    instances.gt_classes = table[:, 4].long()
    return {"file_name": name, "image": torch.full((3, *size), 128, dtype=torch.uint8), "instances": instances}


def run(hook, iterations):
    """{iteration: picture} of what the hook stored."""
    hook.trainer = SimpleNamespace(start_iter=iterations[0], storage=EventStorage(iterations[0]))
    for hook.trainer.iter in iterations:
        hook.trainer.storage.iter = hook.trainer.iter
        hook.after_step()
    assert {name for name, _, _ in hook.trainer.storage._vis_data} <= {"train/batch"}
    return {iteration: picture for _, picture, iteration in hook.trainer.storage._vis_data}


def test_boxes_lie_where_they_are_in_the_sample():
    sheet = draw_samples([sample((20, 30, 60, 90, 0)), sample((120, 30, 200, 90, 1), name="b.png")], CLASSES)
    # A tile is 480 / 240 = 2 times the sample; gaps are 480 / 60 = 8.
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 8 + 480 + 8 + 480 + 8
    for color, left, right in [(CAT, 8 + 40, 8 + 120), (DOG, 496 + 240, 496 + 400)]:
        ys, xs = np.nonzero((sheet == color).all(axis=2))
        assert (xs.min(), xs.max() + 1) == (left, right)
        # The picture's bottom is 8 above the sheet's: 240 - 180 = 60 below the box.
        assert ys.max() + 1 == sheet.shape[0] - 8 - 60


def test_samples_without_boxes_and_of_other_sizes():
    sheet = draw_samples([sample(), sample(size=(64, 32)), sample((0, 0, 240, 120, 1))], CLASSES)
    assert (sheet == DOG).all(axis=2).any() and not (sheet == CAT).all(axis=2).any()


def test_first_iteration_of_a_run_and_every_period():
    hook = PictureHook(lambda: [sample((20, 30, 60, 90, 0))], CLASSES)
    hook.PERIOD = 4
    pictures = run(hook, range(10))
    assert list(pictures) == [0, 4, 8]
    assert all(p.shape[0] == 3 and p.dtype == np.uint8 and p.flags.c_contiguous for p in pictures.values())
    assert list(run(hook, range(6, 10))) == [6, 8], "a resumed run starts anew"


def test_only_the_first_samples_of_a_large_batch():
    sizes = [run(PictureHook(lambda num=num: [sample()] * num, CLASSES), range(1))[0].shape for num in (12, 16, 20)]
    assert sizes[0] < sizes[1] == sizes[2]


def test_other_processes_draw_nothing(monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert run(PictureHook(pytest.fail, CLASSES), range(3)) == {}


def test_training_is_not_disturbed():
    batch = [sample((20, 30, 60, 90, 0))]
    image, boxes = batch[0]["image"].clone(), batch[0]["instances"].gt_boxes.tensor.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    run(PictureHook(lambda: batch, CLASSES), range(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert torch.equal(batch[0]["image"], image) and torch.equal(batch[0]["instances"].gt_boxes.tensor, boxes)


def test_names_that_no_font_can_draw_do_not_end_a_training(monkeypatch, caplog):
    def find_font(text):
        raise UserError("No font.")

    monkeypatch.setattr(fonts, "find_font", find_font)
    run(PictureHook(lambda: [sample((20, 30, 60, 90, 0))], ["세단", "dog"]), range(1))
    assert "No font." in caplog.text
