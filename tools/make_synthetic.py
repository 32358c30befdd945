#!/usr/bin/env python
"""Draw made-up parking scenes in the layout of the challenge's data: images, labels, test list, sample submission.

Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import re

from tqdm import tqdm

from parking.synthetic import make_dataset
from parking.utils.cli import ArgumentParser, at_least, run_tool, say
from parking.utils.machine import num_available_cpus


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if not match or not all(64 <= int(side) <= 4096 for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not WIDTHxHEIGHT with sides of 64 to 4096 pixels, such as 960x540"
        )
    return int(match[1]), int(match[2])


def parse_args(argv=None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to; must hold no data set yet")
    parser.add_argument("--num-train", type=at_least(1), default=640, metavar="N", help="training images (640)")
    parser.add_argument("--num-test", type=at_least(0), default=40, metavar="M", help="test images (40)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="seed that determines every byte (0)")
    parser.add_argument("--size", type=_size, default=(960, 540), metavar="WxH", help="size of every image (960x540)")
    parser.add_argument("--balanced", action="store_true", help="equal shares of all classes instead of a long tail")
    parser.add_argument(
        "--workers", type=at_least(1), default=num_available_cpus(), metavar="K", help="processes (all CPUs)"
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    with tqdm(total=args.num_train + args.num_test, unit="image", desc="drawing") as bar:
        num_boxes = make_dataset(
            args.output,
            num_train=args.num_train,
            num_test=args.num_test,
            size=args.size,
            seed=args.seed,
            balanced=args.balanced,
            workers=args.workers,
            progress=bar.update,
        )
    boxes = ", ".join(f"{name} {count}" for name, count in num_boxes.items())
    say(f"{args.num_train} training images with {sum(num_boxes.values())} boxes: {boxes}")
    say(f"{args.num_test} test images")
    say(f"data set written to {args.output}")
    return 0


if __name__ == "__main__":
    run_tool(main)
