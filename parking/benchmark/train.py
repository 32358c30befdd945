"""Measure how fast a model trains on random images."""

import time
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from parking import solver
from parking.config import Task
from parking.engine.setup import make_deterministic
from parking.engine.train_loop import AccumulatingTrainer, autocast_dtype
from parking.inference.build import build_model
from parking.inference.models import check_config, resolve_device


def run_train_benchmark(cfg: CfgNode, num_iters: int) -> Iterator[str]:
    """Time training iterations, first as usual, then with the deterministic kernels that SEED >= 0 selects on a GPU.

    Args:
        cfg: MODEL.DEVICE and NUM_CLASSES 0 are replaced in place; keys about data sets have no effect.

    Yields:
        Lines to print.
    """
    check_config(cfg, Task.TRAIN)
    resolve_device(cfg)
    cfg.MODEL.YOLO.NUM_CLASSES = cfg.MODEL.YOLO.NUM_CLASSES or 14
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    yield f"{device}, batch {cfg.SOLVER.IMS_PER_BATCH}, {cfg.INPUT.SIZE_TRAIN[0]}x{cfg.INPUT.SIZE_TRAIN[1]}"
    for title, deterministic in [("as configured", False), ("deterministic", True)]:
        make_deterministic(deterministic)
        seconds = time_iterations(cfg, num_iters)
        per_second = cfg.SOLVER.IMS_PER_BATCH * len(seconds) / sum(seconds)
        yield (
            f"{title + ':':15}{per_second:8.1f} images/s, iterations of {1e3 * min(seconds):.0f} to "
            f"{1e3 * max(seconds):.0f} ms"
        )


def time_iterations(cfg, num_iters: int, num_warmup: int = 3) -> list[float]:
    """Return the seconds of each of ``num_iters`` training iterations, after ``num_warmup`` untimed ones.

    An iteration ends when the GPU has finished it.
    """
    torch.manual_seed(0)
    model = build_model(cfg)
    on_gpu = next(model.parameters()).is_cuda
    batch = [
        make_sample(tuple(cfg.INPUT.SIZE_TRAIN), cfg.MODEL.YOLO.NUM_CLASSES) for _ in range(cfg.SOLVER.IMS_PER_BATCH)
    ]
    trainer = AccumulatingTrainer(
        model,
        [batch] * (num_warmup + num_iters),
        solver.build_optimizer(cfg, model),
        max_iter=num_warmup + num_iters,
        accumulation=lambda iteration: solver.accumulation_target(
            cfg.SOLVER.NOMINAL_BATCH_SIZE, cfg.SOLVER.IMS_PER_BATCH
        ),
        autocast_dtype=autocast_dtype(cfg, on_gpu),
    )
    seconds = []
    with EventStorage() as storage:
        for trainer.iter in range(num_warmup + num_iters):
            storage.iter = trainer.iter
            start = time.perf_counter()
            trainer.run_step()
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return seconds[num_warmup:]


def make_sample(size: tuple[int, int], num_classes: int, num_boxes: int = 10) -> dict:
    corners = torch.rand(num_boxes, 2) * torch.tensor([size[1] * 0.7, size[0] * 0.7])
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.cat([corners, corners + 8 + torch.rand(num_boxes, 2) * 0.2 * min(size)], dim=1))
    instances.gt_classes = torch.randint(num_classes, (num_boxes,))
    return {"image": torch.randint(256, (3, *size), dtype=torch.uint8), "instances": instances}
