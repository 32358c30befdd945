"""A training step rarely reads a value back from the device, because the device would run out of work meanwhile."""

import itertools
import warnings
from collections import Counter

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.utils._python_dispatch import TorchDispatchMode

from parking.config import get_cfg
from parking.engine.train_loop import AccumulatingTrainer
from parking.inference.build import build_model
from parking.modeling import DENSE_HEAD_REGISTRY
from parking.utils.constants import HEAD_GROUPS

HEADS = [name for name, head in DENSE_HEAD_REGISTRY if head.__module__.startswith("parking.")]
# Their outputs have as many values as the contents of a tensor say, or are one value on the host.
READING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount", "equal")


class ReadCounter(TorchDispatchMode):
    """Counts, by name, the calls inside it that a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        has_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        has_unknown_size = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in READING or has_mask or has_unknown_size:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def count_reads(monkeypatch):
    """``count_reads(work)``: what ``work()`` reads back, by name."""

    def count(work):
        with monkeypatch.context() as patch, ReadCounter() as counter:
            for method in ("tolist", "numpy", "cpu"):  # on the CPU these are no operations of their own
                original = getattr(torch.Tensor, method)

                def call(tensor, *args, _original=original, _method=method, **kwargs):
                    counter.calls[_method] += 1
                    return _original(tensor, *args, **kwargs)

                patch.setattr(torch.Tensor, method, call)
            work()
        return counter.calls

    return count


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 1],
        lambda x: x.masked_fill_(x > 1, 0).nonzero(),
        lambda x: x.tolist(),
        lambda x: x.repeat_interleave(torch.tensor([2, 1, 1])),
        lambda x: x.unique(),
        lambda x: x.cpu(),
    ],
)
def test_the_counter_finds(work, count_reads):
    assert count_reads(lambda: work(torch.arange(3.0))).total() == 1


def test_the_counter_finds_nothing_else(count_reads):
    def work():
        x = torch.rand(3, 4).topk(2).values
        x[torch.tensor([0, 1])] = 0
        return torch.where(x > 0.5, x, 0).sum().repeat_interleave(3)

    assert not count_reads(work)


def make_batch(num_boxes):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for number in num_boxes:
        corners = torch.rand(number, 2, 2, generator=generator) * torch.tensor([96, 64])
        instances = Instances((64, 96))
        instances.gt_boxes = Boxes(torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1))
        instances.gt_classes = torch.arange(number) % 14
        image = torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    return batch


def make_loop(head, device):
    """Four batches of few and many boxes and of none; before the third, strong augmentation ends."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.HEAD.NAME, cfg.MODEL.YOLO.WIDTH_MULTIPLE = device, head, 0.125
    model = build_model(cfg)
    model.head.strong_augmentation_ends(2)
    batches = [make_batch([1, 2]), make_batch([3, 0, 40, 7]), make_batch([1]), make_batch([0, 0])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return AccumulatingTrainer(model, batches, optimizer, max_iter=99, accumulation=lambda iteration: 1), batches


def test_each_head_has_its_keys():
    assert set(HEADS) == set(HEAD_GROUPS)
    assert all(hasattr(get_cfg().MODEL, group) for group in HEAD_GROUPS.values())


@pytest.mark.parametrize("head", HEADS)
def test_a_step_reads_at_most_twice_a_level(head, count_reads):
    loop, batches = make_loop(head, "cpu")
    reads = []
    with EventStorage() as storage:
        for loop.iter in range(4):
            storage.iter = loop.iter
            # Padding reads its fill values, which are on the host; that is no wait.
            padded = type(loop.model).preprocess_image(loop.model, batches[loop.iter])
            loop.model.preprocess_image = lambda batch, padded=padded: padded
            reads.append(count_reads(loop.run_step))
    assert max(calls.total() for calls in reads) <= 2 * len(loop.model.head_in_features), reads


@pytest.mark.gpu
@pytest.mark.parametrize("head", HEADS)
def test_a_step_waits_for_the_gpu_at_most_twice_a_level(head):
    """As torch's own debug mode sees it; images in pinned memory, as from the data loader."""
    loop, batches = make_loop(head, "cuda")
    for inputs in itertools.chain(*batches):
        inputs["image"] = inputs["image"].pin_memory()
    waits = []
    with EventStorage() as storage:
        for loop.iter in range(4):
            storage.iter = loop.iter
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                loop.run_step()
                torch.cuda.set_sync_debug_mode("default")
            waits.append([str(warning.message) for warning in caught if "synchroniz" in str(warning.message)])
    # The first step also sets the libraries up.
    assert max(map(len, waits[1:])) <= 2 * len(loop.model.head_in_features), waits
