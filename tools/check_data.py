#!/usr/bin/env python
"""Find everything that is wrong with a data set, and draw what is in it.

  python tools/check_data.py [--data-dir /DATA] [--output DIR]
  python tools/check_data.py --coco JSON IMAGES [--coco JSON IMAGES ...] [--output DIR]

Reads every file once and changes none. Prints a table, and writes report.json and pictures to DIR.
Several --coco count as sides of a split: a picture that two of them have, or neighbouring frames in two of them, is a
finding.

Exit codes: 0 no errors found, 1 errors found or a mistake that the message explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from parking.utils.cli import EXIT_USER_ERROR, ArgumentParser, at_least, run_tool, say
from parking.utils.files import check_writable
from parking.utils.machine import num_available_cpus
from parking.utils.marks import OutputFolder

SPLITS = ("sequence", "entry", "all")


def parse_args(argv=None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data-dir", default="/DATA", metavar="DIR", help="data in the challenge's layout (/DATA)")
    data.add_argument(
        "--coco", nargs=2, action="append", metavar=("JSON", "IMAGES"), help="other data: COCO json and image folder"
    )
    parser.add_argument("--output", default="output/check", metavar="DIR", help="folder for report.json and pictures")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="sequence",
        help="split whose sides the pictures show (sequence)",
    )
    parser.add_argument(
        "--num-workers", type=at_least(1), default=num_available_cpus(), metavar="N", help="processes (all CPUs)"
    )
    orientations = ("auto", "apply", "ignore")
    help = "the INPUT.EXIF_ORIENTATION that the data are used with (auto)"
    parser.add_argument("--exif-orientation", choices=orientations, default="auto", help=help)
    parser.add_argument(
        "--allow-outside", action="store_true", help="a json may name images by absolute paths outside its folder"
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    # Import these modules only now, because they take a second and --help does not need them.
    from parking.challenge.data_pictures import PICTURES, draw_pictures
    from parking.challenge.sides import summarize
    from parking.challenge.sources import find_parking_sources
    from parking.data.checking.check import check_sources
    from parking.data.checking.report import count_severities, encode_report, format_report
    from parking.data.checking.sources import make_coco_sources

    sources = make_coco_sources(args.coco) if args.coco else find_parking_sources(args.data_dir)
    output = Path(args.output)
    data_folders = [source.image_root for source in sources] if args.coco else [args.data_dir]
    check_writable(output, name="--output", data_folders=data_folders)
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
            folder.remove(name)  # remove a picture of an earlier run, because it shows other data
    counts = count_severities(checked)
    say("\n" + ", ".join(f"{severity}s: {count:,}" for severity, count in counts.items()))
    say(f"report.json, {', '.join(pictures)} written to {output}")
    return EXIT_USER_ERROR if counts["error"] else 0


if __name__ == "__main__":
    run_tool(main)
