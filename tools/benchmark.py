#!/usr/bin/env python
"""Measure how fast something is.

  python tools/benchmark.py --config-file configs/quickstart.yaml [--iters 20] [KEY VALUE ...]
  python tools/benchmark.py --task infer --config-file configs/yolo.yaml [--weights FILE] [KEY VALUE ...]
  python tools/benchmark.py --task data [--images FOLDER]
  python tools/benchmark.py --task {load,score}

train  A model of a config on random images with ten boxes each: images per second and the fastest and slowest
       iteration, as the config says, and with the deterministic kernels that SEED >= 0 asks of a GPU. Keys of the data
       sets are not looked at.
infer  Images through a model of a config, decoded from the same PNGs as below: images per second of the bare model and
       of the whole pipeline, and where the time goes.
data   Mosaics of 1280 pixels made on one core from PNGs of 1920 x 1080, which are made from photographs in FOLDER or
       else from synthetic scenes: a plain loader, and ours without a cache, with a raw and with a compressed one. And
       whether the memory of data workers grows.
load   Registering and loading a json of the size of the real one.
score  Boxes of 3,000 images, beside faster-coco-eval.
"""

import argparse
import tempfile
from contextlib import contextmanager

from parking.utils.cli import ArgumentParser, add_opts_argument, check_opts, check_started_alone, run_tool, say


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--task", choices=list(TASKS), default="train", help="what to measure (train)")
    parser.add_argument("--config-file", metavar="FILE", help="train, infer: yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--weights", metavar="FILE", help="infer: default random ones")
    parser.add_argument("--passes", type=int, default=1, metavar="N", help="infer: how often each PNG is seen (1)")
    parser.add_argument("--iters", type=int, default=20, metavar="N", help="train: iterations that are timed (20)")
    parser.add_argument("--images", metavar="FOLDER", help="infer, data: photographs to enlarge")
    parser.add_argument("--side", type=int, default=1280, metavar="PIXELS", help="data: of a mosaic (1280)")
    parser.add_argument("--samples", type=int, default=24, metavar="N", help="data: mosaics in each of 5 rounds (24)")
    parser.add_argument("--num-images", type=int, default=64, metavar="N", help="infer, data: PNGs made (64)")
    parser.add_argument("--batches", type=int, default=2000, metavar="N", help="data: for the workers' memory (2000)")
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    if args.task in ("train", "infer") and not args.config_file:
        parser.error("the following arguments are required: --config-file")
    if args.task not in ("train", "infer") and args.opts:
        parser.error(f"--task {args.task} takes no KEY VALUE pairs")
    if min(args.iters, args.passes, args.side, args.samples, args.num_images) < 1:
        parser.error("--iters, --passes, --side, --samples and --num-images must be at least 1")
    if args.batches < 100:
        parser.error("--batches must be at least 100")
    return args


def main() -> None:
    args = parse_args()
    check_started_alone()
    say("Loading PyTorch and detectron2 ...")
    for line in TASKS[args.task](args):
        say(line)


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
    from parking.benchmark.infer import run_infer_benchmark
    from parking.checkpoint import read_weights

    cfg, weights = read_config(args), read_weights(args.weights) if args.weights else None
    with photographs(args) as images:
        yield from run_infer_benchmark(cfg, images, weights=weights, num_images=args.num_images, num_passes=args.passes)


@contextmanager
def photographs(args):
    """The folder --images or, where none is given, one with synthetic scenes."""
    from parking.synthetic import make_dataset

    if args.images:
        yield args.images
        return
    with tempfile.TemporaryDirectory(prefix="parking-scenes-") as scenes:
        make_dataset(scenes, num_train=args.num_images, num_test=1, size=(1920, 1080))
        yield scenes


def run_data(args):
    from parking.benchmark.data import run_data_benchmark, run_memory_benchmark

    with photographs(args) as images:
        yield from run_data_benchmark(images, side=args.side, num_images=args.num_images, num_samples=args.samples)
    yield from run_memory_benchmark(args.batches)


def run_made_up(args):
    from parking.benchmark.load import run_load_benchmark
    from parking.benchmark.score import run_score_benchmark

    yield from {"load": run_load_benchmark, "score": run_score_benchmark}[args.task]()


TASKS = {"train": run_train, "infer": run_infer, "data": run_data, "load": run_made_up, "score": run_made_up}

if __name__ == "__main__":
    run_tool(main)
