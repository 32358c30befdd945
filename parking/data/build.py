"""Build the data loaders of training and inference."""

from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset

from parking.data.dataset_mapper import TestDatasetMapper, TrainDatasetMapper
from parking.data.datasets.coco import check_datasets
from parking.data.samplers.class_balanced_sampler import ClassBalancedTrainingSampler, class_balanced_weights
from parking.data.samplers.repeat_factor_sampler import RepeatFactorTrainingSampler, compute_repeat_factors
from parking.data.samplers.training_sampler import PositionedTrainingSampler, decode_position
from parking.utils.errors import UserError
from parking.utils.machine import num_available_cpus

from .workers import WorkerLoader


class PositionedDataset(Dataset):
    """Makes a sample from each integer of a sampler, which encodes an image's index and its position in the stream.

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
        """Return the sample for a ``code`` of :func:`~parking.data.samplers.training_sampler.encode_position`."""
        position, index = decode_position(code, len(self._dataset))
        dataset_dict = self._dataset[index]
        try:
            return self._mapper({**dataset_dict, "position": position})
        except UserError:
            raise
        except Exception as e:
            raise RuntimeError(f"Sample {position} could not be made from '{dataset_dict['file_name']}': {e}") from e


def load_train_dicts(cfg: CfgNode) -> list[dict]:
    """Return the dataset dicts of all data sets in ``DATASETS.TRAIN``, including images without boxes.

    Raises:
        UserError: a data set is not registered, or two of them have different classes.
    """
    check_datasets(list(cfg.DATASETS.TRAIN))
    # Skip detectron2's check_consistency: it checks the classes again and makes a table of boxes, which takes long.
    return get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=False, check_consistency=False)


def build_train_loader(
    cfg: CfgNode,
    dataset_dicts: list[dict],
    *,
    seed: int,
    start_iter: int = 0,
    class_ap: Sequence[float | None] | None = None,
) -> WorkerLoader:
    """Return the endless stream of training batches of this process.

    The global batch of an iteration depends only on the config, the data, the seed and ``class_ap``, and not on the
    numbers of workers and processes or on where the stream was started. The images of an epoch depend only on the seed,
    the epoch and the image weights. If a loader is built in the middle of an epoch with a new ``class_ap``, it yields
    the rest of the epoch that the new weights alone would have drawn; to continue a run exactly, give it the
    ``class_ap`` that the run had.

    Args:
        dataset_dicts: from :func:`load_train_dicts`.
        seed: not negative, the same in all processes.
        start_iter: the iteration of the first batch, for resuming.
        class_ap: AP of each class in the last evaluation, 0..1, where None or NaN counts as 0; None before the first
            evaluation, when all count as 0. Only the ``ClassBalancedTrainingSampler`` reads it.

    Returns:
        An iterable of lists of ``SOLVER.IMS_PER_BATCH / world size`` dicts, see :class:`TrainDatasetMapper`.
    """
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    # DatasetFromList stores the dicts as bytes, because worker processes share bytes but would copy objects.
    dataset = DatasetFromList(dataset_dicts, copy=False)
    return WorkerLoader(
        PositionedDataset(dataset, TrainDatasetMapper(cfg, dataset, seed=seed)),
        _build_train_sampler(cfg, dataset_dicts, class_ap, seed=seed, start=start_iter * batch_size),
        batch_size=batch_size // comm.get_world_size(),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _build_train_sampler(cfg, dataset_dicts, class_ap, *, seed: int, start: int):
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return PositionedTrainingSampler(len(dataset_dicts), seed=seed, start=start)
    if name == "ClassBalancedTrainingSampler":
        weights = class_balanced_weights(dataset_dicts, cfg.MODEL.YOLO.NUM_CLASSES, class_ap)
        iters = cfg.SOLVER.ITERS_PER_EPOCH
        epoch_size = iters * cfg.SOLVER.IMS_PER_BATCH if iters > 0 else len(dataset_dicts)
        return ClassBalancedTrainingSampler(weights, epoch_size=epoch_size, seed=seed, start=start)
    if name == "RepeatFactorTrainingSampler":
        threshold = cfg.DATALOADER.REPEAT_THRESHOLD
        factors = compute_repeat_factors(dataset_dicts, threshold, sqrt=cfg.DATALOADER.REPEAT_SQRT)
        return RepeatFactorTrainingSampler(factors, seed=seed, start=start)
    raise ValueError(f"there is no sampler {name!r}")


def load_test_dicts(dataset_name: str) -> list[dict]:
    """Return the dicts of a registered data set with their annotations removed; include images that have no boxes."""
    check_datasets([dataset_name])
    dataset_dicts = get_detection_dataset_dicts([dataset_name], filter_empty=False, check_consistency=False)
    return [{key: value for key, value in d.items() if key != "annotations"} for d in dataset_dicts]


def build_inference_loader(cfg: CfgNode, batches: Sequence[list[dict]], order: Sequence[int]) -> WorkerLoader:
    """Return a loader of the ``batches`` that ``order`` selects; worker processes decode images ahead of the model.

    Args:
        batches: all batches, from :func:`parking.inference.runner.plan_inference`.
        order: the indices of the batches to load, in this order.

    Returns:
        An iterable of lists of dicts, see :class:`TestDatasetMapper`. An image that cannot be used does not end the
        iteration: its dict has the key ``error``, and no ``image``. If the model is on a GPU, the pixels are in pinned
        memory.
    """
    mapper = TestDatasetMapper(cfg)
    return WorkerLoader(
        batches,
        order,
        # More workers than CPUs or batches would only take time to start.
        num_workers=min(cfg.DATALOADER.NUM_WORKERS, num_available_cpus(), len(order)),
        # Each item of ``batches`` is a batch already.
        collate=lambda items: [mapper(dataset_dict) for dataset_dict in items[0]],
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
    )
