#!/usr/bin/env python
"""Measure how fast something is.

  python tools/benchmark.py --config-file configs/quickstart.yaml [--iters 20] [KEY VALUE ...]
  python tools/benchmark.py --task data [--images FOLDER]
  python tools/benchmark.py --task load

train  A model of a config on random images with ten boxes each: images per second and the fastest and slowest
       iteration, as the config says, and with the deterministic kernels that SEED >= 0 asks of a GPU. Keys of the data
       sets are not looked at.
data   Mosaics of 1280 pixels made on one core from PNGs of 1920 x 1080, which are made from photographs in FOLDER or
       else from synthetic scenes: a plain loader, and ours without a cache, with a raw and with a compressed one. And
       whether the memory of data workers grows.
load   Registering and loading a json of the size of the real one.
"""

import argparse
import tempfile
from pathlib import Path

from parking.utils.cli import add_opts_argument, check_opts, run_tool

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "../shared/data/vehicles/images"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["train", "data", "load"], default="train", help="what to measure (train)")
    parser.add_argument("--config-file", metavar="FILE", help="train: yaml file, e.g. configs/quickstart.yaml")
    parser.add_argument("--iters", type=int, default=20, metavar="N", help="train: iterations that are timed (20)")
    parser.add_argument("--images", metavar="FOLDER", help="data: photographs to enlarge")
    parser.add_argument("--side", type=int, default=1280, metavar="PIXELS", help="data: of a mosaic (1280)")
    parser.add_argument("--samples", type=int, default=24, metavar="N", help="data: mosaics in each of 5 rounds (24)")
    parser.add_argument("--num-images", type=int, default=64, metavar="N", help="data: PNGs that are made (64)")
    parser.add_argument("--batches", type=int, default=2000, metavar="N", help="data: for the workers' memory (2000)")
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    if args.task == "train" and not args.config_file:
        parser.error("the following arguments are required: --config-file")
    if args.task != "train" and args.opts:
        parser.error(f"--task {args.task} takes no KEY VALUE pairs")
    if min(args.iters, args.side, args.samples, args.num_images) < 1:
        parser.error("--iters, --side, --samples and --num-images must be at least 1")
    if args.batches < 100:
        parser.error("--batches must be at least 100")
    return args


def main() -> None:
    args = parse_args()
    print("Loading PyTorch and detectron2 ...", flush=True)
    for line in {"train": run_train, "data": run_data, "load": run_load}[args.task](args):
        print(line, flush=True)


def run_train(args):
    from parking.benchmark.train import run_train_benchmark
    from parking.config import get_cfg
    from parking.engine.setup import setup_logging

    setup_logging()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    yield from run_train_benchmark(cfg, args.iters)


def run_data(args):
    from parking.benchmark.data import run_data_benchmark, run_memory_benchmark
    from parking.synthetic import make_dataset

    with tempfile.TemporaryDirectory(prefix="parking-scenes-") as scenes:
        images = args.images or str(PHOTOGRAPHS)
        if not args.images and not PHOTOGRAPHS.is_dir():
            make_dataset(scenes, num_train=args.num_images, num_test=1, size=(1920, 1080))
            images = scenes
        yield from run_data_benchmark(images, side=args.side, num_images=args.num_images, num_samples=args.samples)
    yield from run_memory_benchmark(args.batches)


def run_load(args):
    from parking.benchmark.load import run_load_benchmark

    yield from run_load_benchmark()


if __name__ == "__main__":
    run_tool(main)
