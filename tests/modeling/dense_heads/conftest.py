import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Memory(TorchDispatchMode):
    """Bytes of all tensors that are made while this is active, at their most."""

    def __init__(self):
        super().__init__()
        self._made = {}
        self._total = 0
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._made:
                    self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self._total += storage.nbytes()
        if self._total > self.peak:
            # This may be a new peak; look only now which storages are gone, because that takes long.
            self._made = {key: (ref, size) for key, (ref, size) in self._made.items() if not ref.expired()}
            self._total = sum(size for _, size in self._made.values())
            self.peak = max(self.peak, self._total)
        return result


@pytest.fixture(scope="session")
def peak_bytes():
    """``peak_bytes(work)``: bytes of the tensors that ``work()`` makes, at their most, also on the device "meta"."""

    def measure(work):
        with _Memory() as memory:
            work()
        return memory.peak

    return measure
