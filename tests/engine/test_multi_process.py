"""Two processes with half of each batch against one with all of it."""

import argparse
import importlib
from pathlib import Path

import pytest
import torch

from parking.engine import launch
from parking.modeling import DENSE_HEAD_REGISTRY

HEADS = [name for name, head in DENSE_HEAD_REGISTRY if head.__module__.startswith("parking.")]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{(number of processes, rank): results} of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(Path(__file__).parent))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        launched = importlib.import_module("launched")
        for num_processes in (1, 2):
            args = argparse.Namespace(num_gpus=num_processes, num_machines=1, machine_rank=0, dist_url="auto")
            args.folder = str(folder)
            launch(launched.train_and_resume, args)
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pth", weights_only=True)
        for size, rank in [(1, 0), (2, 0), (2, 1)]
    }


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("when", ["weights amid", "weights"])
def test_steps_are_those_of_one_process(results, rank, when):
    assert_equal(results[2, rank][when], results[1, 0][when])


@pytest.mark.parametrize("key", [(1, 0), (2, 0), (2, 1)])
def test_resuming_changes_nothing(results, key):
    resumed, expected = results[key]["weights resumed"], results[key]["weights"]
    assert all(torch.equal(resumed[name], expected[name]) for name in expected), "bit for bit"


def test_training_moves_the_weights(results):
    # The weights compared above must not all be those of the beginning.
    amid, end = results[1, 0]["weights amid"], results[1, 0]["weights"]
    assert all((end[name] - amid[name]).abs().max() > 1e-3 for name in end)


def test_losses_are_means_over_all_processes(results):
    assert_equal(results[2, 0]["losses"], results[1, 0]["losses"])


@pytest.mark.parametrize("rank", [0, 1])
def test_broadcast_gives_all_the_main_processs_weights_and_buffers(results, rank):
    tensors = results[2, rank]["broadcast"]
    assert "1.running_var" in tensors and "1.num_batches_tracked" in tensors
    for name, tensor in tensors.items():
        # Before, each process had filled its tensors with its rank + 5.
        assert (tensor == 5).all(), name


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("head", HEADS)
def test_the_detectors_gradients_are_those_of_one_process(results, head, rank):
    """Although one process has 1 box and the other 11: means are over the matches of both."""
    (expected, expected_losses), (actual, losses) = (
        results[key]["detector gradients"][head] for key in ((1, 0), (2, rank))
    )
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        difference = (actual[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert difference < 1e-4, (name, difference)
    if rank == 0:
        assert_equal(losses, expected_losses)
