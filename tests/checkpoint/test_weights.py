import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from parking.checkpoint import Checkpointer, find_weights, load_weights, read_weights
from parking.utils.errors import UserError


class Head(nn.Module):
    num_anchors = 3

    def __init__(self, num_classes):
        super().__init__()
        self.predictors = nn.ModuleList([nn.Conv2d(2, 3 * (5 + num_classes), 1)])


class Model(nn.Module):
    def __init__(self, num_classes=4, channels=2):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.head = Head(num_classes)


class Counter:
    """A checkpointable with one plain value."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def save(path: Path, content) -> str:
    torch.save(content, path)
    return str(path)


def test_release_file_carries_everything(tmp_path):
    model = Model()
    checkpointer = Checkpointer(
        model, str(tmp_path), extra={"config": {"SEED": 1}, "class_names": ["a"], "category_ids": [7]}
    )
    checkpointer.save_release("model_best", model.state_dict(), iteration=5)
    weights = read_weights(tmp_path / "model_best.pth")
    assert (weights.config, weights.class_names, weights.category_ids) == ({"SEED": 1}, ["a"], [7])
    other = Model()
    load_weights(other, weights)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert not (tmp_path / "last_checkpoint").exists(), "the best is not what --resume continues"


def test_the_averaged_weights_are_preferred(tmp_path):
    model = Model()
    average = {name: torch.full_like(tensor, 2.0) for name, tensor in model.state_dict().items()}
    path = save(tmp_path / "m.pth", {"model": model.state_dict(), "ema": {"num_updates": 1, "average": average}})
    assert read_weights(path).state_dict["stem.weight"].eq(2.0).all()


def test_resumable_checkpoints_are_bounded_and_tagged(tmp_path):
    model, counter = Model(), Counter()
    checkpointer = Checkpointer(model, str(tmp_path), num_to_keep=2, counter=counter)
    for iteration in (9, 99, 999):
        counter.value = iteration
        checkpointer.save_resumable(f"model_{iteration:07d}")
    checkpointer.save_release("model_final", model.state_dict())
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "model_0000099.pth",
        "model_0000999.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000999.pth"
    assert not list(tmp_path.glob(".*")), "no temporary file stays"
    again, restored = Model(), Counter()
    Checkpointer(again, str(tmp_path), counter=restored).resume()
    assert restored.value == 999
    assert torch.equal(again.stem.weight, model.stem.weight)


def test_a_checkpoint_newly_written_is_never_the_one_removed(tmp_path):
    (tmp_path / "model_2_mine.pth").touch()
    checkpointer = Checkpointer(Model(), str(tmp_path), num_to_keep=1)
    checkpointer.save_resumable("model_0000500")
    checkpointer.save_resumable("model_0000010")
    assert (tmp_path / "model_0000010.pth").exists()
    assert (tmp_path / "model_2_mine.pth").exists(), "a user's own file is left alone"


def test_values_of_a_release_can_be_read_back(tmp_path):
    checkpointer = Checkpointer(Model(), str(tmp_path))
    assert checkpointer.read_values("model_best") == {}
    checkpointer.save_release("model_best", Model().state_dict(), metric="bbox/AP75", value=3.5)
    assert checkpointer.read_values("model_best") == {"metric": "bbox/AP75", "value": 3.5}


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path):
    model = Model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save_release("model_best", model.state_dict())
    before = (tmp_path / "model_best.pth").read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpointer.save_release("model_best", model.state_dict(), unpicklable=lambda: None)
    assert (tmp_path / "model_best.pth").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model_best.pth"]


def test_find_weights_prefers_best_then_final_then_last(tmp_path):
    assert find_weights(tmp_path) is None
    (tmp_path / "model_0000009.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    for name in ("model_0000009.pth", "model_final.pth", "model_best.pth"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path) == str(tmp_path / name)


def test_resuming_without_or_from_a_bare_file(tmp_path):
    checkpointer = Checkpointer(Model(), str(tmp_path), counter=Counter())
    with pytest.raises(UserError, match="holds no checkpoint to resume"):
        checkpointer.resume()
    save(tmp_path / "model_0000001.pth", {"model": Model().state_dict()})
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(UserError, match="it has no 'counter'"):
        checkpointer.resume()


def test_another_number_of_classes(tmp_path, caplog):
    old, new = Model(num_classes=4), Model(num_classes=2)
    weights = read_weights(save(tmp_path / "four.pth", {"model": old.state_dict()}))
    with pytest.raises(UserError, match="have 4 classes, but the model has 2"):
        load_weights(new, weights)
    fresh = new.head.predictors[0].weight.detach().clone().view(3, 7, 2)
    load_weights(new, weights, new_classes=True)
    assert "head.predictors.0.weight, head.predictors.0.bias start anew" in caplog.text
    assert torch.equal(new.stem.weight, old.stem.weight)
    rows, old_rows = new.head.predictors[0].weight.view(3, 7, 2), old.head.predictors[0].weight.view(3, 9, 2)
    assert torch.equal(rows[:, :5], old_rows[:, :5])
    assert torch.equal(rows[:, 5:], fresh[:, 5:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stem.bias"), "stem.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is left over"),
        (lambda s: s.update({"stem.bias": torch.zeros(9)}), r"stem.bias has shape \(9,\) instead of \(2,\)"),
    ],
)
def test_every_tensor_counts(tmp_path, change, message):
    state = dict(Model().state_dict())
    change(state)
    weights = read_weights(save(tmp_path / "m.pth", {"model": state}))
    for new_classes in (False, True):
        with pytest.raises(UserError, match=message):
            load_weights(Model(), weights, new_classes=new_classes)


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_nothing_in_a_file_is_run(tmp_path):
    marker = tmp_path / "ran"
    path = save(tmp_path / "hostile.pth", {"model": Hostile(marker)})
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file does run code where it is loaded without care"
    marker.unlink()
    with pytest.raises(UserError, match=r"hostile.pth cannot be read"):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"not a checkpoint at all", "cannot be read"),
        (b"PK\x03\x04broken", "cannot be read"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="nothing is downloaded"):
        read_weights("https://example.org/x.pth")
    with pytest.raises(UserError, match="do not exist"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(UserError, match="hold a Tensor"):
        read_weights(save(tmp_path / "t.pth", torch.zeros(3)))
    foreign = read_weights(save(tmp_path / "f.pth", {"model": Model().state_dict(), "ema": {"other": 1}}))
    assert foreign.state_dict.keys() == Model().state_dict().keys()
    with pytest.raises(UserError, match="carry no class names"):
        foreign.class_names_and_ids()
    with pytest.raises(UserError, match="hold no model"):
        read_weights(save(tmp_path / "d.pth", {"model": {"a": 1}}))
    whole = (tmp_path / "t.pth").read_bytes()
    (tmp_path / "t.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "t.pth")
