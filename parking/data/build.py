"""Data loaders."""

import cv2
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm
from torch.utils.data import DataLoader

from parking.data.common import PositionedDataset
from parking.data.dataset_mapper import TestDatasetMapper, TrainDatasetMapper
from parking.data.datasets.builtin import check_datasets
from parking.data.samplers import PositionedTrainingSampler
from parking.utils.errors import UserError


def load_train_dicts(cfg: CfgNode) -> list[dict]:
    """The dataset dicts of all of ``DATASETS.TRAIN``, images without boxes included; the data sets are registered."""
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a data set to train on.")
    check_datasets(list(cfg.DATASETS.TRAIN))
    return get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=False)


def build_train_loader(cfg: CfgNode, dataset_dicts: list[dict], *, seed: int, start_iter: int = 0) -> DataLoader:
    """The endless stream of training batches of this process.

    The global batch of an iteration is a function of the config, the data and the seed: not of the numbers of workers
    and processes, nor of where the stream was started.

    Args:
        dataset_dicts: from :func:`load_train_dicts`.
        seed: not negative, the same in all processes.
        start_iter: the iteration of the first batch, for resuming.

    Returns:
        An iterable of lists of ``SOLVER.IMS_PER_BATCH / world size`` dicts, see :class:`TrainDatasetMapper`.
    """
    batch_size, world_size = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if batch_size < 1 or batch_size % world_size:
        raise UserError(f"SOLVER.IMS_PER_BATCH {batch_size} must be a multiple of the {world_size} training processes.")
    # Serialised once, for the workers share the bytes where they would copy the objects.
    dataset = DatasetFromList(dataset_dicts, copy=False)
    loader = build_detection_train_loader(
        dataset=PositionedDataset(dataset, TrainDatasetMapper(cfg, dataset, seed=seed)),
        mapper=None,
        sampler=PositionedTrainingSampler(len(dataset), seed=seed, start=start_iter * batch_size),
        total_batch_size=batch_size,
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        # The loader draws its workers' seeds from a generator of its own, not from the global one.
        seed=seed,
    )
    return _limit_worker_threads(loader)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Batches of one image, this process's share of a registered data set in order; see :class:`TestDatasetMapper`."""
    check_datasets([dataset_name])
    dataset_dicts = get_detection_dataset_dicts([dataset_name], filter_empty=False)
    return _build_ordered_loader(cfg, dataset_dicts, TestDatasetMapper(cfg))


def build_inference_loader(cfg: CfgNode, dataset_dicts: list[dict]) -> DataLoader:
    """Like :func:`build_test_loader` for the images of :func:`.datasets.images.list_images`.

    An image that cannot be used does not end the run: its batch is a dict with the key ``error`` and without ``image``.
    """
    return _build_ordered_loader(cfg, dataset_dicts, TestDatasetMapper(cfg, report_errors=True))


def _build_ordered_loader(cfg, dataset_dicts, mapper):
    loader = build_detection_test_loader(dataset=dataset_dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)
    return _limit_worker_threads(loader)


def _limit_worker_threads(loader: DataLoader) -> DataLoader:
    # detectron2's builders leave no argument for it. Its own function, replaced here, seeds what nothing draws from.
    loader.worker_init_fn = _init_worker
    return loader


def _init_worker(worker_id: int) -> None:
    cv2.setNumThreads(0)
