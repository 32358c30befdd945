#!/usr/bin/env python
"""Check whether the challenge would accept a submission; the file is not changed.

  python tools/check_submission.py output/submission.json --image-info /DATA/Test_Images_Information.json \\
      [--sample /DATA/sample_submission.json]

Exit codes: 0 accepted, 1 not accepted or a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse

from parking.challenge.submission.options import add_limit_arguments
from parking.utils.cli import EXIT_USER_ERROR, ArgumentParser, run_tool, say


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("file", metavar="FILE", help="the submission")
    parser.add_argument("--image-info", metavar="FILE", help="Test_Images_Information.json, with the ids and sizes")
    parser.add_argument(
        "--sample", metavar="FILE", help="sample_submission.json, with the keys that every box must have"
    )
    add_limit_arguments(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from parking.challenge.submission.check import check_submission

    check = check_submission(
        args.file,
        image_info=args.image_info,
        sample=args.sample,
        max_per_image=args.max_per_image,
        max_bytes=args.max_bytes,
    )
    say(f"{args.file}: {check.num_boxes} boxes on {check.num_images} images, {check.num_bytes / 1e6:.2f} MB")
    for problem in check.problems:
        where = "" if problem.first_row is None else f" (the first is row {problem.first_row}, counted from 0)"
        say(f"  {problem.count} {problem.title}{where}")
    say("Do not submit it like this." if check.problems else "Nothing is wrong with it.")
    return EXIT_USER_ERROR if check.problems else 0


if __name__ == "__main__":
    run_tool(main)
