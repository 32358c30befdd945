import copy

import pytest
import torch
from detectron2.modeling import build_model
from torch.testing import assert_close

from parking.modeling import YOLO
from parking.utils.errors import UserError

BOXES = [[4.0, 4, 20, 24], [10, 8, 58, 60], [1, 1, 63, 63]]


def training_batch(sample):
    return [sample(64, 64, BOXES, [0, 1, 2]), sample(64, 64)]


def test_detectron2_builds_it_by_name(pico_cfg):
    assert isinstance(build_model(pico_cfg), YOLO)


@torch.no_grad()
def test_images_are_padded_right_and_bottom_with_normalised_gray(pico_cfg, sample):
    pico_cfg.MODEL.PIXEL_MEAN, pico_cfg.MODEL.PIXEL_STD = [10.0, 20.0, 30.0], [100.0, 200.0, 50.0]
    model = YOLO(pico_cfg)
    inputs = [sample(40, 64), sample(33, 30)]
    images = model.preprocess_image(inputs)
    assert images.image_sizes == [(40, 64), (33, 30)]
    assert images.tensor.shape == (2, 3, 64, 64)
    mean, std = torch.tensor([10.0, 20, 30]).view(3, 1, 1), torch.tensor([100.0, 200, 50]).view(3, 1, 1)
    assert_close(images.tensor[1, :, :33, :30], (inputs[1]["image"] - mean) / std)
    gray = ((114 - mean) / std).expand(3, 64, 64)
    assert_close(images.tensor[1, :, 33:], gray[:, 33:])
    assert_close(images.tensor[0, :, 40:], gray[:, 40:])
    assert_close(images.tensor[1, :, :, 30:], gray[:, :, 30:])


@torch.no_grad()
def detector_of_known_boxes(cfg):
    """Finds, whatever it sees, class 1 in the middle of each 32 x 32 cell, 20 x 20 pixels, and nothing else."""
    cfg.MODEL.ANCHOR_HEAD.ANCHORS[2][0] = [20, 20]
    cfg.MODEL.YOLO.SCORE_THRESH_TEST = 0.5
    model = YOLO(cfg).eval()
    for predictor in model.head.predictors:
        predictor.weight.zero_()
        predictor.bias.fill_(-10)
    bias = model.head.predictors[2].bias.view(3, 8)
    bias[0] = torch.tensor([0.0, 0, 0, 0, 10, -10, 10, -10])
    return model


@torch.no_grad()
def test_detections_are_scaled_to_the_size_asked_for_and_clipped(pico_cfg, sample):
    model = detector_of_known_boxes(pico_cfg)
    (output,) = model([sample(48, 64) | {"height": 96, "width": 128}])
    instances = output["instances"]
    # Cells at (16, 16), (48, 16), (16, 48), (48, 48), +-10, clipped at 48 pixels, times 2.
    expected = torch.tensor([[12.0, 12, 52, 52], [76, 12, 116, 52], [12, 76, 52, 96], [76, 76, 116, 96]])
    assert_close(instances.pred_boxes.tensor, expected)
    assert instances.pred_classes.tolist() == [1] * 4
    assert_close(instances.scores, torch.full((4,), torch.tensor(10.0).sigmoid().item() ** 2))
    assert instances.image_size == (96, 128)


@torch.no_grad()
def test_detections_in_the_padding_are_dropped(pico_cfg, sample):
    (output,) = detector_of_known_boxes(pico_cfg)([sample(36, 64)])
    # The lower two boxes start at 38.
    assert_close(output["instances"].pred_boxes.tensor, torch.tensor([[6.0, 6, 26, 26], [38, 6, 58, 26]]))


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (31, 97), (1, 1), (33, 200)])
def test_any_size_works(pico, sample, size):
    (output,) = pico([sample(*size)])
    instances = output["instances"]
    assert instances.image_size == size
    assert 0 < len(instances) <= 300
    assert (instances.scores.diff() <= 0).all()
    assert instances.pred_boxes.inside_box(size, boundary_threshold=1e-3).all()
    assert instances.pred_boxes.nonempty().all()


@torch.no_grad()
def test_an_image_is_predicted_as_if_it_were_alone(pico):
    images = torch.rand(3, 3, 64, 64)
    together, alone = pico.predict(images), pico.predict(images[1:2])
    for name in ("boxes", "scores", "upper_bound"):
        assert_close(getattr(together, name)[1:2], getattr(alone, name), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_channels_last_gives_the_same(pico, sample):
    inputs = [sample(64, 64)]
    images = pico.preprocess_image(inputs).tensor
    expected = pico.predict(images)
    model = pico.to(memory_format=torch.channels_last)
    actual = model.predict(images.to(memory_format=torch.channels_last))
    assert_close(tuple(actual), tuple(expected), rtol=1e-4, atol=1e-3)
    assert actual.boxes.isfinite().all() and actual.scores.isfinite().all()
    assert len(model(inputs)[0]["instances"]) > 0


@torch.no_grad()
def test_an_image_of_nan_gives_no_detections(pico, sample):
    inputs = [{"image": torch.full((3, 64, 64), torch.nan)}, sample(64, 64)]
    outputs = pico(inputs)
    assert len(outputs[0]["instances"]) == 0
    assert len(outputs[1]["instances"]) > 0


def test_training_with_and_without_boxes(pico, sample):
    losses = pico.train()(training_batch(sample))
    assert set(losses) == {"loss_box", "loss_obj", "loss_cls"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    losses = pico([sample(64, 64), sample(50, 64)])
    assert losses["loss_box"] == losses["loss_cls"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in pico.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_reach_every_parameter(pico, sample, memory_format):
    sum(pico.train().to(memory_format=memory_format)(training_batch(sample)).values()).backward()
    without = [name for name, p in pico.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in pico.parameters())


def test_a_box_belongs_to_its_own_image(pico, sample):
    batch = training_batch(sample)
    swapped = [batch[1] | {"image": batch[0]["image"]}, batch[0] | {"image": batch[1]["image"]}]
    first, second = pico.train()(batch), pico(swapped)
    assert not torch.isclose(first["loss_box"], second["loss_box"], rtol=1e-6)


def test_training_and_evaluation_are_deterministic_and_leave_inputs_alone(pico, sample):
    batch = training_batch(sample)
    before = copy.deepcopy(batch)
    state = copy.deepcopy(pico.state_dict())
    with torch.no_grad():
        first, second = pico(batch), pico(batch)
    assert_close(first[0]["instances"].pred_boxes.tensor, second[0]["instances"].pred_boxes.tensor, rtol=0, atol=0)
    assert_close(pico.state_dict(), state, rtol=0, atol=0)

    other = copy.deepcopy(pico).train()
    assert_close(pico.train()(batch), other(batch), rtol=0, atol=0)
    for used, original in zip(batch, before, strict=True):
        assert_close(used["image"], original["image"], rtol=0, atol=0)
        boxes = used["instances"].gt_boxes.tensor
        assert_close(boxes, original["instances"].gt_boxes.tensor, rtol=0, atol=0)


def test_a_few_steps_learn_one_picture(pico, sample):
    batch = training_batch(sample)[:1]
    optimizer = torch.optim.Adam(pico.train().parameters(), lr=1e-2)
    history = []
    for _ in range(12):
        loss = sum(pico(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def test_autocast_gives_float32_losses_near_the_full_ones(pico, sample):
    batch = training_batch(sample)
    pico.train()
    full = pico(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = pico(batch)
    assert {loss.dtype for loss in half.values()} == {torch.float32}
    assert_close(half, full, rtol=0.05, atol=0.01)


def set_key(cfg, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        cfg = cfg[parent]
    cfg[last] = value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("YOLO.NUM_CLASSES", 0),
        ("YOLO.IN_FEATURES", ["p3", "p4", "p7"]),
        ("ANCHOR_HEAD.ANCHORS", [[[10, 13]], [[30, 61]]]),
        ("ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS", [4.0, 1.0]),
    ],
)
def test_settings_that_do_not_fit_are_the_users_mistake(pico_cfg, key, value):
    set_key(pico_cfg.MODEL, key, value)
    with pytest.raises(UserError, match=rf"MODEL\.{key}"):
        YOLO(pico_cfg)
