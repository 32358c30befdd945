#!/usr/bin/env python
"""Unpack train.zip and test.zip of the data folder where the folders train/ and test/ are missing.

  python tools/prepare_data.py --data-dir /DATA

Run it again after an interruption: it goes on where it stopped. A folder that exists is compared with its zip and never
changed, nor are the zips. Exit codes: 0 all is there, 1 something is missing or differs, or a mistake that the message
explains, 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from parking.data.preparation import (
    Part,
    check_disk,
    compare,
    find_layout_problems,
    find_parts,
    format_size,
    unpack,
)
from parking.utils.cli import run_tool

# Files that a list of differences names before it only counts.
NUM_EXAMPLES = 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="/DATA", metavar="DIR", help="the data folder (/DATA)")
    return parser.parse_args()


def main() -> int:
    data_dir = Path(parse_args().data_dir)
    parts = find_parts(data_dir)
    check_disk(parts)
    problems = []
    for part in parts:
        if part.archive and part.archive.num_skipped:
            print(f"{part.archive.file}: {part.archive.num_skipped} files of macOS are left out (__MACOSX, ._*, ...)")
        if not part.is_unpacked:
            unpack_with_bar(part)
            continue
        if part.archive:
            problems += verify(part)
        else:
            print(f"{part.folder} is there; without {part.folder.name}.zip there is nothing to compare it with")
        if part.staging.exists():
            print(f"{part.staging} is left from an interrupted run and can be removed")
    problems += find_layout_problems(data_dir)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        sys.stderr.write(f"error: the layout of {data_dir} is not complete; see datasets/README.md\n")
        return 1
    print(
        f"everything is in place below {data_dir}: train/images, train/label/Train.json, test/images and the test list"
    )
    print(f"next: python tools/check_data.py --data-dir {data_dir}")
    return 0


def unpack_with_bar(part: Part) -> None:
    archive = part.archive
    print(f"{archive.file}: {len(archive.members)} files, {format_size(archive.size)} unpacked", flush=True)
    try:
        with tqdm(total=archive.size, unit="B", unit_scale=True, desc=f"unpacking {archive.file.name}") as bar:
            num_kept = unpack(part, progress=bar.update)
    except KeyboardInterrupt:
        sys.stderr.write("run this again, and it goes on where it stopped\n")
        raise
    kept = f" ({num_kept} of them by an earlier run)" if num_kept else ""
    print(f"{part.folder}: {len(archive.members)} files unpacked{kept}")


def verify(part: Part) -> list[str]:
    missing, differing, num_more = compare(part)
    more = f"; {num_more} more files are not in the zip" if num_more else ""
    if not missing and not differing:
        print(
            f"{part.folder}: all {len(part.archive.members)} files are there with the size in {part.archive.file}{more}"
        )
        return []
    problems = list_some(missing, f"of {part.archive.file} are missing in {part.folder}")
    problems += list_some(differing, f"in {part.folder} have another size than in {part.archive.file}")
    advice = f"{part.folder} was not changed{more}; move it away and run this again to unpack it anew."
    return [*problems, advice]


def list_some(paths: list[str], what: str) -> list[str]:
    if not paths:
        return []
    rest = len(paths) - NUM_EXAMPLES
    examples = paths[:NUM_EXAMPLES] + ([f"and {rest} more"] if rest > 0 else [])
    return ["\n  ".join([f"{len(paths)} files {what}:", *examples])]


if __name__ == "__main__":
    run_tool(main)
