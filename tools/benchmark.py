#!/usr/bin/env python
"""Measure the speed of training, of inference, or of the data.

  python tools/benchmark.py --config-file configs/quickstart.yaml [--iters 20] [KEY VALUE ...]
  python tools/benchmark.py --task infer --config-file configs/yolo.yaml [--weights FILE] [--images DIR] [KEY VALUE ...]
  python tools/benchmark.py --task data [--images DIR]
  python tools/benchmark.py --task score

train  Trains on random images with ten boxes each: images per second, the fastest and the slowest iteration, as the
       config says, and with the deterministic kernels that SEED >= 0 needs on a GPU. Keys of data sets have no effect.
infer  Runs inference on the PNGs described below: images per second of the bare model and of the whole pipeline, and
       where the time goes.
data   Makes mosaics of 1280 pixels by one thread from PNGs of 1920 x 1080: without a cache, with a raw and with a jpeg
       cache. Also shows whether the memory of data workers grows. The PNGs are made from the photographs in DIR or,
       without --images, from synthetic scenes.
score  Scores the boxes of 3,000 images, and compares with faster-coco-eval.
"""

import argparse

from parking.utils import cli


def parse_args() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--task", choices=list(TASKS), default="train", help="what to measure (train)")
    parser.add_argument("--config-file", metavar="FILE", help="train, infer: yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--weights", metavar="FILE", help="infer: weights (default: random ones)")
    parser.add_argument("--images", metavar="DIR", help="infer, data: photographs to make the PNGs from")
    for flag, default, what in (
        ("--iters", 20, "train: iterations that are timed"),
        ("--passes", 1, "infer: how often each PNG is seen"),
        ("--num-images", 64, "infer, data: number of PNGs"),
        ("--side", 1280, "data: side of a mosaic in pixels"),
        ("--samples", 24, "data: mosaics in each of 5 rounds"),
        ("--batches", 2000, "data: batches for the memory of workers"),
    ):
        low = 100 if flag == "--batches" else 1
        parser.add_argument(flag, type=cli.at_least(low), default=default, metavar="N", help=f"{what} ({default})")
    cli.add_opts_argument(parser)
    args = parser.parse_args()
    if args.task in ("train", "infer") and not args.config_file:
        parser.error("the following arguments are required: --config-file")
    if args.task not in ("train", "infer") and args.opts:
        parser.error(f"--task {args.task} takes no KEY VALUE pairs")
    return args


def main() -> None:
    args = parse_args()
    cli.check_started_alone()
    cli.say("Loading PyTorch and detectron2 ...")
    for line in TASKS[args.task](args):
        cli.say(line)


def run_train(args):
    from parking.benchmark.train import run_train_benchmark

    yield from run_train_benchmark(read_config(args), args.iters)


def read_config(args):
    from parking.config import get_cfg
    from parking.utils.logs import setup_logging

    setup_logging()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    return cfg


def run_infer(args):
    from parking.benchmark.data import open_photographs
    from parking.benchmark.infer import run_infer_benchmark
    from parking.checkpoint import read_weights

    cfg, weights = read_config(args), read_weights(args.weights) if args.weights else None
    with open_photographs(args.images, args.num_images) as images:
        yield from run_infer_benchmark(cfg, images, weights=weights, num_images=args.num_images, num_passes=args.passes)


def run_data(args):
    from parking.benchmark.data import open_photographs, run_data_benchmark, run_memory_benchmark

    with open_photographs(args.images, args.num_images) as images:
        yield from run_data_benchmark(images, side=args.side, num_images=args.num_images, num_samples=args.samples)
    yield from run_memory_benchmark(args.batches)


def run_score(args):
    from parking.benchmark.score import run_score_benchmark

    yield from run_score_benchmark()


TASKS = {"train": run_train, "infer": run_infer, "data": run_data, "score": run_score}

if __name__ == "__main__":
    cli.run_tool(main)
