#!/usr/bin/env python
"""Cut the predictions of infer.py down to another submission, without running the model again.

  python tools/make_submission.py --predictions output/yolo/inference/predictions.json [--class-floor stroller=500] \\
      [--annotations FILE] [--output FILE]

Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from tabulate import tabulate

from parking.challenge.classes import CLASS_NAMES
from parking.challenge.submission.cost import compute_ap75, read_annotations
from parking.challenge.submission.options import add_limit_arguments, parse_class_floors
from parking.challenge.submission.selection import SPACINGS, SubmissionOptions, write_submission
from parking.data.datasets.json_io import read_image_records, read_json_object
from parking.evaluation.coco_results import fit_to_images, read_predictions
from parking.inference.sinks.result_ids import read_about_ids
from parking.utils.cli import ArgumentParser, complain, run_tool, say
from parking.utils.errors import UserError
from parking.utils.files import check_writable
from parking.utils.text import printable

CLASSES = {name: i for i, name in enumerate(CLASS_NAMES, start=1)}


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--predictions", required=True, metavar="FILE", help="predictions.json; stays as it is")
    parser.add_argument("--output", metavar="FILE", help="default: submission.json beside the predictions")
    add_limit_arguments(parser)
    parser.add_argument(
        "--class-floor",
        action="append",
        default=[],
        metavar="CLASS=N",
        help="keep the N best boxes of a class before others use up the size limit; N alone is for every class that "
        "is not named; may be given several times",
    )
    parser.add_argument("--spacing", choices=SPACINGS, default="compact", help="compact has no spaces (compact)")
    parser.add_argument(
        "--image-info", metavar="FILE", help="list of images with ids and sizes; clips boxes to the images"
    )
    parser.add_argument(
        "--annotations", metavar="FILE", help="COCO json; prints the AP75 lost by the cut, on the images in both"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    output = args.output or str(Path(args.predictions).with_name("submission.json"))
    if os.path.isdir(output):
        raise UserError(f"--output {output} is a folder; give a file in it.")
    check_writable(os.path.dirname(output) or ".", name="--output: the folder")
    inputs = [args.predictions, *filter(None, [args.image_info, args.annotations])]
    for path in inputs:
        if os.path.realpath(output) == os.path.realpath(path):
            raise UserError(f"--output {output} would overwrite '{path}'; give another name.")
    class_floors = parse_class_floors(args.class_floor, CLASSES, option="--class-floor")
    predictions = read_predictions(args.predictions)
    for sentence in read_about_ids(args.predictions):
        complain(f"{printable(args.predictions)}: {sentence}")
    unknown = predictions.category_ids[~np.isin(predictions.category_ids, list(CLASSES.values()))]
    if len(unknown):
        raise UserError(
            f"'{args.predictions}' has boxes of the category {unknown[0]}; the challenge has 1 to {len(CLASSES)}."
        )
    if args.image_info is not None:
        records = read_image_records(read_json_object(args.image_info), args.image_info)
        sizes = {record["image_id"]: (record.get("height"), record.get("width")) for record in records}
        predictions = fit_to_images(predictions, sizes, path=args.predictions, image_info=args.image_info)
    # Read the annotations before the submission is written, so that no file is written if they have a mistake.
    truth = None
    if args.annotations is not None:
        images = Path(args.predictions).with_name("images.json")
        images = str(images) if images.exists() else None
        truth = read_annotations(args.annotations, classes={i: name for name, i in CLASSES.items()}, images=images)

    options = SubmissionOptions(args.max_bytes, args.max_per_image, class_floors, args.spacing)
    report = write_submission(predictions, output, options)
    say(f"{output}: {report.describe()[0]}", *(f"  {line}" for line in report.describe()[1:]))
    print_classes(predictions, predictions[report.kept], truth)


def print_classes(predictions, submission, truth) -> None:
    """Print each class's numbers of all and of submitted boxes; if ``truth`` is given, also the AP75 of both."""
    headers = ["class", "boxes", "submitted", "lowest score"]
    rows = []
    for name, category_id in CLASSES.items():
        scores = submission.scores[submission.category_ids == category_id]
        lowest = scores.min() if len(scores) else None
        rows.append([name, (predictions.category_ids == category_id).sum(), len(scores), lowest])
    if truth is not None:
        before, per_class = compute_ap75(truth, predictions)
        after, per_class_after = compute_ap75(truth, submission)
        headers += ["AP75 before", "AP75 after"]
        rows = [[*row, per_class[i], per_class_after[i]] for row, i in zip(rows, CLASSES.values(), strict=True)]
        say(
            f"AP75 on {len(truth.image_ids)} annotated images: {before:.2f} of all boxes, {after:.2f} of those in the "
            f"submission; it cost {before - after:.2f}"
        )
    say(tabulate(rows, headers=headers, floatfmt=("", "", "", ".4f", ".2f", ".2f")))


if __name__ == "__main__":
    run_tool(main)
