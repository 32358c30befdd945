#!/usr/bin/env python
"""Measure how fast a model of a config trains, without data: random images with ten boxes each.

  python tools/benchmark.py --config-file configs/quickstart.yaml [--iters 20] [KEY VALUE ...]

Prints images per second and the fastest and slowest iteration: as the config says, and with the deterministic kernels
that SEED >= 0 asks of a GPU. Keys of the data sets are not looked at.
"""

import argparse
import time

from parking.utils.cli import add_opts_argument, check_opts, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/quickstart.yaml")
    parser.add_argument("--iters", type=int, default=20, metavar="N", help="iterations that are timed (20)")
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    if args.iters < 1:
        parser.error("--iters must be at least 1")
    return args


def main() -> None:
    args = parse_args()
    print("Loading PyTorch and detectron2 ...", flush=True)
    import torch

    from parking.config import get_cfg
    from parking.engine.setup import make_deterministic, resolve_device, setup_logging

    setup_logging()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    resolve_device(cfg)
    cfg.MODEL.YOLO.NUM_CLASSES = cfg.MODEL.YOLO.NUM_CLASSES or 14
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, batch {cfg.SOLVER.IMS_PER_BATCH}, {cfg.INPUT.SIZE_TRAIN[0]}x{cfg.INPUT.SIZE_TRAIN[1]}")
    for title, deterministic in [("as configured", False), ("deterministic", True)]:
        make_deterministic(deterministic)
        seconds = time_iterations(cfg, args.iters)
        per_second = cfg.SOLVER.IMS_PER_BATCH * len(seconds) / sum(seconds)
        print(
            f"{title + ':':15}{per_second:8.1f} images/s, iterations of {1e3 * min(seconds):.0f} to "
            f"{1e3 * max(seconds):.0f} ms"
        )


def time_iterations(cfg, num_iters: int, num_warmup: int = 3) -> list[float]:
    """Seconds of each of ``num_iters`` training iterations, the device waited for, after some that do not count."""
    import torch
    from detectron2.utils.events import EventStorage

    from parking import solver
    from parking.engine import build_model
    from parking.engine.train_loop import AccumulatingTrainer
    from parking.engine.trainer import autocast_dtype

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
    import torch
    from detectron2.structures import Boxes, Instances

    corners = torch.rand(num_boxes, 2) * torch.tensor([size[1] * 0.7, size[0] * 0.7])
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.cat([corners, corners + 8 + torch.rand(num_boxes, 2) * 0.2 * min(size)], dim=1))
    instances.gt_classes = torch.randint(num_classes, (num_boxes,))
    return {"image": torch.randint(256, (3, *size), dtype=torch.uint8), "instances": instances}


if __name__ == "__main__":
    run_tool(main)
