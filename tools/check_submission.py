#!/usr/bin/env python
"""Check whether the challenge would accept a submission; the file is not changed.

  python tools/check_submission.py output/submission.json --image-info /DATA/Test_Images_Information.json \\
      [--sample /DATA/sample_submission.json]

Exit codes: 0 it would, 1 it would not or a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import math

from parking.utils.cli import EXIT_USER_ERROR, ArgumentParser, run_tool, say
from parking.utils.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("file", metavar="FILE", help="the submission")
    parser.add_argument("--image-info", metavar="FILE", help="Test_Images_Information.json, with the ids and sizes")
    parser.add_argument(
        "--sample", metavar="FILE", help="sample_submission.json, with the keys that every box must have"
    )
    parser.add_argument("--max-per-image", type=int, default=50, metavar="N", help="limit of boxes per image (50)")
    parser.add_argument("--max-size-mb", type=float, default=20.0, metavar="MB", help="limit in MB of 10^6 bytes (20)")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if not math.isfinite(args.max_size_mb):
        raise UserError(f"--max-size-mb is {args.max_size_mb}; it must be a number of megabytes.")
    from parking.challenge.submission.check import check_submission

    check = check_submission(
        args.file,
        image_info=args.image_info,
        sample=args.sample,
        max_per_image=args.max_per_image,
        max_bytes=int(args.max_size_mb * 1e6),
    )
    say(f"{args.file}: {check.num_boxes} boxes on {check.num_images} images, {check.num_bytes / 1e6:.2f} MB")
    for problem in check.problems:
        where = "" if problem.first_row is None else f" (the first is row {problem.first_row}, counted from 0)"
        say(f"  {problem.count} {problem.title}{where}")
    say("Do not submit it like this." if check.problems else "Nothing is wrong with it.")
    return EXIT_USER_ERROR if check.problems else 0


if __name__ == "__main__":
    run_tool(main)
