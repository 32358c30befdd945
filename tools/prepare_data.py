#!/usr/bin/env python
"""Unpack train.zip and test.zip of the data folder (skips what is already unpacked).

  python tools/prepare_data.py --data-dir /DATA

After an interruption, run it again: it goes on where it stopped. A folder that exists is compared with its zip; neither
is changed. Exit codes: 0 all is there, 1 something is missing or differs, or a mistake that the message explains,
2 wrong usage, 130 Ctrl-C.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from parking.challenge.preparation import (
    Part,
    check_disk,
    compare,
    find_layout_problems,
    find_parts,
    format_size,
    unpack,
)
from parking.utils.cli import ArgumentParser, complain, run_tool, say

# If files are missing or differ, a message names this many of them and counts the rest.
NUM_EXAMPLES = 10


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--data-dir", default="/DATA", metavar="DIR", help="the data folder (/DATA)")
    return parser.parse_args()


def main() -> int:
    data_dir = Path(parse_args().data_dir)
    parts = find_parts(data_dir)
    check_disk(parts)
    problems = []
    for part in parts:
        if part.archive and part.archive.num_skipped:
            say(f"{part.archive.file}: {part.archive.num_skipped} files of macOS are skipped (__MACOSX, ._*, ...)")
        if not part.is_unpacked:
            unpack_with_bar(part)
            continue
        if part.archive:
            problems += verify(part)
        else:
            say(f"{part.folder} is there; it is not compared, because there is no {part.folder.name}.zip")
        if part.staging.exists():
            say(f"{part.staging} is left from an interrupted run and can be removed")
    problems += find_layout_problems(data_dir)
    for problem in problems:
        complain(f"{problem}")
    if problems:
        complain(f"error: the layout of {data_dir} is not complete; see datasets/README.md")
        return 1
    say(f"everything is in place below {data_dir}: train/images, train/label/Train.json, test/images and the test list")
    say(f"next: python tools/check_data.py --data-dir {data_dir}")
    return 0


def unpack_with_bar(part: Part) -> None:
    archive = part.archive
    say(f"{archive.file}: {len(archive.members)} files, {format_size(archive.size)} unpacked")
    try:
        with tqdm(total=archive.size, unit="B", unit_scale=True, desc=f"unpacking {archive.file.name}") as bar:
            num_kept = unpack(part, progress=bar.update)
    except KeyboardInterrupt:
        complain("run this again, and it goes on where it stopped")
        raise
    kept = f" ({num_kept} of them by an earlier run)" if num_kept else ""
    say(f"{part.folder}: {len(archive.members)} files unpacked{kept}")


def verify(part: Part) -> list[str]:
    missing, differing, num_more = compare(part)
    more = f"; {num_more} more files are not in the zip" if num_more else ""
    if not missing and not differing:
        say(
            f"{part.folder}: all {len(part.archive.members)} files are there with the size in {part.archive.file}{more}"
        )
        return []
    problems = list_some(missing, f"of {part.archive.file} are missing in {part.folder}")
    problems += list_some(differing, f"in {part.folder} differ in size from {part.archive.file}")
    advice = f"{part.folder} was not changed{more}; move it away and run this to unpack the zip again."
    return [*problems, advice]


def list_some(paths: list[str], what: str) -> list[str]:
    if not paths:
        return []
    rest = len(paths) - NUM_EXAMPLES
    examples = paths[:NUM_EXAMPLES] + ([f"and {rest} more"] if rest > 0 else [])
    return ["\n  ".join([f"{len(paths)} files {what}:", *examples])]


if __name__ == "__main__":
    run_tool(main)
