#!/usr/bin/env python
"""Find everything that is wrong with a data set, and draw what is in it.

  python tools/check_data.py [--data-dir /DATA] [--output DIR]
  python tools/check_data.py --coco JSON IMAGES [--coco JSON IMAGES ...] [--output DIR]

Reads every file once and writes nothing but what it finds: a table to the terminal, report.json and pictures to DIR.
Several --coco are taken for sides of a split: the same pictures, or neighbouring frames, in two of them are findings.

Exit codes: 0 no errors found, 1 errors found or a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from parking.utils.cli import EXIT_USER_ERROR, ArgumentParser, run_tool, say
from parking.utils.cpus import num_available_cpus
from parking.utils.errors import UserError
from parking.utils.files import check_writable
from parking.utils.marks import OutputFolder

SPLITS = ("sequence", "entry", "all")
EXAMPLES_PER_CLASS, EXAMPLE_SIDE = 8, 112
# In pictures; Objects365 has as many.
MAX_CLASSES_SHOWN = 365
PICTURES = ("class_counts.png", "box_sizes.png", "boxes_per_image.png", "conditions.png", "class_examples.png")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def parse_args(argv=None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data-dir", default="/DATA", metavar="DIR", help="the challenge's layout (/DATA)")
    data.add_argument(
        "--coco", nargs=2, action="append", metavar=("JSON", "IMAGES"), help="COCO json and image folder instead"
    )
    parser.add_argument("--output", default="output/check", metavar="DIR", help="for report.json and pictures")
    parser.add_argument(
        "--split", choices=SPLITS, default="sequence", help="whose two sides the pictures show (sequence)"
    )
    parser.add_argument(
        "--num-workers", type=_positive, default=num_available_cpus(), metavar="N", help="processes (all CPUs)"
    )
    orientations = ("auto", "apply", "ignore")
    help = "the INPUT.EXIF_ORIENTATION that the data are used with (auto)"
    parser.add_argument("--exif-orientation", choices=orientations, default="auto", help=help)
    parser.add_argument(
        "--allow-outside", action="store_true", help="a json may name images by absolute paths outside its folder"
    )
    return parser.parse_args(argv)


def check_output(output: Path, data_folders: list[str]) -> None:
    for folder in data_folders:
        if output.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"The output '{output}' lies in the data folder '{folder}', where nothing is written.")
    check_writable(output, name="--output")


def main(argv=None) -> int:
    args = parse_args(argv)
    # Not above: they take a second, which --help need not.
    from parking.challenge.sides import summarize
    from parking.challenge.sources import find_parking_sources
    from parking.data.checking.check import check_sources
    from parking.data.checking.report import count_severities, encode_report, format_report
    from parking.data.checking.sources import make_coco_sources

    sources = make_coco_sources(args.coco) if args.coco else find_parking_sources(args.data_dir)
    output = Path(args.output)
    check_output(output, [source.image_root for source in sources] if args.coco else [args.data_dir])
    folder = OutputFolder(output)
    folder.check(["report.json", *PICTURES])
    with tqdm(unit="image", desc="reading") as bar:
        how = {"num_workers": args.num_workers, "exif_orientation": args.exif_orientation}
        how["allow_outside"] = args.allow_outside
        checked = check_sources(sources, **how, start=bar.reset, progress=bar.update)
    overview = summarize(checked, split=args.split)
    say(format_report(checked, overview))
    pictures = draw_pictures(overview, args.num_workers)
    for name, content in {"report.json": encode_report(checked, overview), **pictures}.items():
        with folder.open(name) as file:
            file.write(content)
    for name in PICTURES:
        if name not in pictures:
            folder.remove(name)  # an earlier run's, about other data
    counts = count_severities(checked)
    say("\n" + ", ".join(f"{severity}s: {count:,}" for severity, count in counts.items()))
    say(f"report.json, {', '.join(pictures)} written to {output}")
    return EXIT_USER_ERROR if counts["error"] else 0


def draw_pictures(overview, num_workers: int) -> dict[str, bytes]:
    """PNG files by name, of the most frequent classes."""
    from parking.challenge.conditions import TITLES, get_sequence_key
    from parking.data.checking.examples import choose_examples, cut_examples
    from parking.data.checking.overview import keep_frequent
    from parking.visualization.data_charts import (
        draw_class_examples,
        encode_png,
        plot_box_sizes,
        plot_boxes_per_image,
        plot_class_counts,
        plot_conditions,
    )

    overview = keep_frequent(overview, MAX_CLASSES_SHOWN)
    names, sides = overview.class_names, overview.sides
    pictures = [
        plot_class_counts(names, {side.name: side.class_counts.tolist() for side in sides}),
        plot_box_sizes(overview.boxes[:, 2:]),
        plot_boxes_per_image({side.name: side.boxes_per_image for side in sides}),
        plot_conditions({title: {side.name: side.conditions[key] for side in sides} for key, title in TITLES.items()}),
    ]
    if names:
        examples = choose_examples(
            overview.classes,
            overview.boxes,
            overview.image_files,
            sequence_of=get_sequence_key,
            num_classes=len(names),
            per_class=EXAMPLES_PER_CLASS,
        )
        pictures.append(
            draw_class_examples(
                names,
                cut_examples(examples, overview.exif_orientations, side=EXAMPLE_SIDE, num_workers=num_workers),
                sum(side.class_counts for side in sides).tolist() if sides else [0] * len(names),
                per_class=EXAMPLES_PER_CLASS,
            )
        )
    return {name: encode_png(picture) for name, picture in zip(PICTURES, pictures, strict=False)}


if __name__ == "__main__":
    run_tool(main)
