"""Provide the data set that a data loader iterates over."""

from collections.abc import Callable, Sequence

from torch.utils.data import Dataset

from parking.data.samplers import decode_position
from parking.utils.errors import UserError


class PositionedDataset(Dataset):
    """Makes a sample for each integer that a sampler yields: calls the mapper with a dataset dict and its position.

    It replaces detectron2's ``MapDataset``, which does not tell the mapper the position, replaces a sample by a random
    one if the mapper returns None, and remembers every integer it was ever asked for.

    Args:
        dataset: dataset dicts.
        mapper: called with a dict that has the key ``position``.
    """

    def __init__(self, dataset: Sequence[dict], mapper: Callable[[dict], dict]):
        self._dataset = dataset
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, code: int) -> dict:
        """Return the sample for a ``code`` of :func:`parking.data.samplers.encode_position`."""
        position, index = decode_position(code, len(self._dataset))
        dataset_dict = self._dataset[index]
        try:
            return self._mapper({**dataset_dict, "position": position})
        except UserError:
            raise
        except Exception as e:
            raise RuntimeError(f"Sample {position} could not be made from '{dataset_dict['file_name']}': {e}") from e
