import ctypes
import gc
import mmap
import sys

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from parking.benchmark import data
from parking.benchmark.data import measure_memory_slope

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Leak(IterableDataset):
    """Keeps `kept` bytes of every sample."""

    def __init__(self, kept):
        self.kept = kept

    def __iter__(self):
        memory = []
        while True:
            # Not from the heap, where what the parent has freed would hide it.
            memory.append(mmap.mmap(-1, self.kept))
            memory[-1].write(bytes(self.kept))
            yield 0


@pytest.fixture
def trimmed_heap():
    """Without free memory in the heap, which workers would inherit and fill without growing."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


@linux_only
def test_a_leak_is_seen():
    loader = DataLoader(Leak(200_000), batch_size=1, num_workers=2, multiprocessing_context="fork")
    # Each of two workers makes every second batch: 500 of 1,000, of 200 KB each.
    assert measure_memory_slope(loader, 300) == pytest.approx(100_000, rel=0.1)


@pytest.mark.long
@linux_only
def test_workers_do_not_grow(trimmed_heap):
    (line,) = data.run_memory_benchmark(2000)
    slope = float(line.split(":")[1].split("KB")[0])
    # A sample of 64 x 64 pixels kept of each batch would be 6,000.
    assert abs(slope) < 200, line


def test_figures_are_reported(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    lines = list(data.run_data_benchmark(str(tmp_path), side=64, num_images=2, num_samples=2, num_rounds=1))
    text = "\n".join(lines)
    for name in ("no cache", "raw disk cache", "jpeg disk cache"):
        assert f"  {name}:" in text
    assert "PSNR" in text
