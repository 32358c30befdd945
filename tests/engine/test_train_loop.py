import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from parking.engine.train_loop import AccumulatingTrainer, upload_targets
from parking.utils.errors import UserError


class Square(torch.nn.Module):
    """loss = sum over the batch of (weight * x) ** 2 / 2, a sum over images as the detector's is."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        return {"loss_a": sum((self.weight * x) ** 2 for x in batch) / 2}


def make_trainer(batches, accumulation, lr=0.1, **kwargs):
    model = Square()
    return AccumulatingTrainer(
        model, batches, torch.optim.SGD(model.parameters(), lr=lr), max_iter=99, accumulation=accumulation, **kwargs
    )


def run(trainer, num_iters, start=0, note=lambda: None):
    """Run iterations and return the storage; ``note`` is called after each."""
    with EventStorage(start) as storage:
        for trainer.iter in range(start, num_iters):
            storage.iter = trainer.iter
            trainer.run_step()
            note()
        trainer.flush_metrics()
    return storage


def test_targets_are_uploaded_in_a_copy():
    instances = Instances((8, 8), gt_boxes=Boxes(torch.rand(2, 4)), gt_classes=torch.tensor([1, 0]))
    batch = [{"image": torch.zeros(3, 8, 8), "instances": instances, "file_name": "a.png"}]
    assert upload_targets(batch, torch.device("cpu")) is batch
    (uploaded,) = upload_targets(batch, torch.device("meta"))
    assert uploaded["instances"].gt_boxes.tensor.is_meta and uploaded["instances"].gt_classes.is_meta
    assert uploaded["image"] is batch[0]["image"] and uploaded["file_name"] == "a.png"
    assert batch[0]["instances"] is instances and not instances.gt_classes.is_meta


def test_gradients_are_summed_until_the_step():
    trainer = make_trainer([[1.0, 2.0], [3.0], [1.0]], accumulation=lambda i: 2)
    run(trainer, 1)
    assert trainer.model.weight.item() == 1.0
    assert trainer.last_step_iteration == -1 and trainer.is_amid_step
    trainer = make_trainer([[1.0, 2.0], [3.0], [1.0]], accumulation=lambda i: 2)
    run(trainer, 3)
    # d loss / d weight = weight * sum of x^2 = 1 + 4 + 9 = 14 over the first two batches: 1 - 0.1 * 14 = -0.4; the
    # third waits for a fourth.
    assert trainer.model.weight.item() == pytest.approx(-0.4)
    assert trainer.last_step_iteration == 1


def test_a_growing_accumulation_counts_from_the_last_step():
    trainer = make_trainer([[1.0]] * 9, accumulation=lambda i: 1 if i < 2 else 3)
    last_steps = []
    run(trainer, 9, note=lambda: last_steps.append(trainer.last_step_iteration))
    assert last_steps == [0, 1, 1, 1, 4, 4, 4, 7, 7]


def test_metrics_are_per_image_and_of_every_iteration():
    trainer = make_trainer([[2.0, 4.0], [6.0]], accumulation=lambda i: 99)
    storage = run(trainer, 2)
    # (4 + 16) / 2 / 2 images = 5, 36 / 2 / 1 image = 18.
    assert [value for value, _ in storage.history("total_loss").values()] == [5.0, 18.0]
    assert [iteration for _, iteration in storage.history("loss_a").values()] == [0, 1]


def test_a_loss_may_begin_and_end_between_two_lines_of_the_log():
    trainer = make_trainer([[2.0], [2.0], [2.0]], accumulation=lambda i: 1, lr=0)
    plain = trainer.model.forward
    trainer.model.forward = lambda batch: (
        plain(batch) | ({"loss_b": plain(batch)["loss_a"]} if trainer.iter == 1 else {})
    )
    storage = run(trainer, 3)
    assert [value for value, _ in storage.history("total_loss").values()] == [2.0, 4.0, 2.0]
    assert [iteration for _, iteration in storage.history("loss_b").values()] == [1]


def test_a_step_with_a_loss_that_is_not_finite_is_left_out(caplog):
    nan = float("nan")
    trainer = make_trainer([[1.0], [nan], [2.0], [1.0]], accumulation=lambda i: 2)
    storage = run(trainer, 4)
    # The first two go together; then 4 + 1 = 5: 1 - 0.1 * 5.
    assert trainer.model.weight.item() == pytest.approx(0.5)
    assert trainer.num_skipped_in_a_row == 0
    assert (
        "The loss of iteration 1 is not finite (loss_a nan) on a nameless image; this step is left out" in caplog.text
    )
    assert [iteration for _, iteration in storage.history("total_loss").values()] == [0, 2, 3]


def test_three_steps_in_a_row_without_a_finite_loss_end_the_run(caplog):
    batches = [[float("inf")], [float("nan")], [1.0], *([[float("nan")]] * 3), [1.0]]
    trainer = make_trainer(batches, accumulation=lambda i: 1)
    with pytest.raises(UserError, match="not finite in 3 steps in a row: The loss of iteration 5"):
        run(trainer, 7)
    assert trainer.iter == 5
    assert trainer.model.weight.item() == pytest.approx(0.9), "only the sound batch counted"


def test_statistics_of_norms_survive_a_batch_that_is_not_finite():
    class Normed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(1)

        def forward(self, batch):
            return {"loss_a": self.norm(torch.tensor(batch)[:, None]).square().sum()}

    model = Normed()
    batches = [[1.0, 2.0], [5.0, 2.0], [float("nan"), 1.0]]
    trainer = AccumulatingTrainer(
        model,
        batches,
        torch.optim.SGD(model.parameters(), lr=0.1),
        max_iter=9,
        accumulation=lambda i: 1 if i == 0 else 2,
    )
    run(trainer, 1)
    before = model.norm.running_mean.clone()
    amid_step = []
    run(trainer, 3, start=1, note=lambda: amid_step.append(trainer.is_amid_step))
    assert amid_step == [True, False]
    # The statistics are those before the first batch of the step, although that batch was sound.
    assert torch.equal(model.norm.running_mean, before)
    assert not trainer.has_stepped


def test_bfloat16_on_the_cpu_keeps_weights_and_losses_usable():
    class Linear(torch.nn.Linear):
        def forward(self, batch):
            out = super().forward(torch.stack(batch))
            assert out.dtype == torch.bfloat16
            return {"loss_a": out.float().square().sum()}

    model = Linear(4, 1)
    trainer = AccumulatingTrainer(
        model,
        [[torch.ones(4)]] * 3,
        torch.optim.SGD(model.parameters(), lr=0.01),
        max_iter=3,
        accumulation=lambda i: 1,
        autocast_dtype=torch.bfloat16,
    )
    before = model.weight.detach().clone()
    run(trainer, 3)
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


class Picky(UserError):
    """A subclass of UserError, such as the readers of files raise."""


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise Picky("The image 'a: b.png' cannot be read.")


def test_a_workers_mistake_is_told_in_its_own_words():
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    with pytest.raises(UserError) as info:
        run(make_trainer(loader, accumulation=lambda i: 1), 1)
    assert str(info.value) == "The image 'a: b.png' cannot be read."
    info.value.with_traceback(None)


def test_state_round_trip():
    trainer = make_trainer([[1.0]] * 4, accumulation=lambda i: 2)
    run(trainer, 4)
    other = make_trainer([[1.0]], accumulation=lambda i: 2)
    other.load_state_dict(trainer.state_dict())
    assert other.last_step_iteration == 3 and not other.is_amid_step


def test_a_gradient_that_is_not_finite_is_left_out_too(caplog):
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.0))

        def forward(self, batch):
            return {"loss_a": (self.weight * batch[0]).abs().sqrt()}  # whose slope at 0 is infinite

    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AccumulatingTrainer(model, [[1.0]], optimizer, max_iter=9, accumulation=lambda i: 1)
    run(trainer, 1)
    assert model.weight.item() == 0.0
    assert "The gradient up to iteration 0 is not finite, though the losses are" in caplog.text


def test_a_step_that_the_scaler_leaves_out_is_none():
    # The gradient is x ** 2 = 1e34, which overflows times 65536 and no more times 32768.
    trainer = make_trainer([[1e17]] * 2, accumulation=lambda i: 1, lr=1e-36, autocast_dtype=torch.float16)
    took = []
    run(trainer, 2, note=lambda: took.append((trainer.has_stepped, trainer.model.weight.item())))
    assert took == [(False, 1.0), (True, pytest.approx(0.99))]


def test_gradients_that_overflow_whatever_the_scale_end_the_run():
    trainer = make_trainer([[1.0]] * 99, accumulation=lambda i: 1, autocast_dtype=torch.float16)
    trainer.model.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="not finite in half precision"):
        run(trainer, 99)
    # The scale was halved from 2 ** 16 to below 2 ** -14.
    assert trainer.iter == 31
