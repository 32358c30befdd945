"""Report what a check found, as tables for people and as json for programs."""

import json
from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from parking.data.checking.check import CheckedSource
from parking.data.checking.overview import Overview, Side, SplitSummary
from parking.utils.class_names import shown_name
from parking.utils.text import printable

from .findings import KINDS, count_kinds

_SEVERITIES = ("error", "warning", "note")
_NUM_EXAMPLES = 3
_EXAMPLE_WIDTH = 110


def count_severities(checked: Sequence[CheckedSource]) -> dict[str, int]:
    """Count the findings of each severity, in the order "error", "warning", "note"."""
    counts = Counter(KINDS[finding.kind].severity for one in checked for finding in one.findings)
    return {severity: counts[severity] for severity in _SEVERITIES}


def format_report(checked: Sequence[CheckedSource], overview: Overview) -> str:
    """Return the report as text: tables of the sources, of the splits (if there are any) and of the findings."""
    parts = [format_sources(checked)]
    if overview.splits:
        parts.append(format_splits(overview.splits, overview.class_names))
    parts.append(format_findings(checked) if any(one.findings for one in checked) else "Nothing was found.")
    return "\n\n".join(parts)


def format_findings(checked: Sequence[CheckedSource]) -> str:
    """Return a table with a row for each kind of finding in each source, errors first."""
    rows = []
    for one in checked:
        for kind, count in count_kinds(one.findings).items():
            title, severity, strict, repair = KINDS[kind]
            examples = [f"{f.where} {f.detail}" for f in one.findings if f.kind == kind][:_NUM_EXAMPLES]
            # The text is the last column, because letters of double width would shift any column to its right.
            text = "\n".join([title, *(f"  {_shorten(example)}" for example in examples)])
            rows.append([printable(one.source.name), severity, f"{count:,}", strict, repair, text])
    rows.sort(key=lambda row: _SEVERITIES.index(row[1]))
    options = {"disable_numparse": True, "colalign": ("left", "left", "right", "left", "left", "left")}
    return tabulate(rows, headers=["data", "severity", "count", "strict", "repair", "what, with examples"], **options)


def format_sources(checked: Sequence[CheckedSource]) -> str:
    """Return a table with a row for each source: what was read, and what a loader would use under "repair"."""
    rows = []
    for one in checked:
        num_images = "-" if one.columns is None else len(one.columns)
        num_boxes = len(one.columns.boxes) if one.columns is not None and one.source.has_annotations else "-"
        sizes = _count_sizes(one).most_common(3)
        text = ", ".join(f"{size} ({count:,})" for size, count in sizes)
        name, json_file = printable(one.source.name), printable(one.source.json_file)
        rows.append([name, f"{len(one.facts):,}", num_images, num_boxes, text, json_file])
    headers = ["data", "image files", "images in use", "boxes in use", "most frequent sizes", "json"]
    return tabulate(rows, headers=headers, intfmt=",", disable_numparse=[0, 4, 5])


def format_splits(summaries: Sequence[SplitSummary], class_names: Sequence[str]) -> str:
    """Return a table of the splits: images and boxes per side, and images with a near neighbour on the other side."""
    possible = [summary for summary in summaries if not summary.note]
    rows = [
        ["images", *(_join(summary.num_images) for summary in possible)],
        ["images with a near neighbour on the other side", *(f"{summary.num_leaking:,}" for summary in possible)],
    ]
    for c, name in enumerate(class_names):
        rows.append([shown_name(name), *(_join(summary.num_boxes[c]) for summary in possible)])
    headers = ["training | validation", *(summary.split for summary in possible)]
    table = tabulate(rows, headers=headers, disable_numparse=True, colalign=["left", *["right"] * len(possible)])
    return "\n".join([table, *(f"{summary.split}: {summary.note}" for summary in summaries if summary.note)])


def encode_report(checked: Sequence[CheckedSource], overview: Overview) -> bytes:
    """Return all findings, their counts, and facts about the data as UTF-8 json."""
    findings = [
        {"data": one.source.name, **finding._asdict(), "severity": KINDS[finding.kind].severity}
        for one in checked
        for finding in one.findings
    ]
    counts = count_kinds(finding for one in checked for finding in one.findings)
    content = {
        "severities": count_severities(checked),
        "kinds": {kind: {**KINDS[kind]._asdict(), "count": count} for kind, count in counts.items()},
        "data": [_describe_source(one) for one in checked],
        "sides": [_describe_side(side, overview.class_names) for side in overview.sides],
        "splits": [_describe_split(summary, overview.class_names) for summary in overview.splits],
        "findings": findings,
    }
    # Bytes of file names that are not UTF-8 are written as escapes, which JSON allows.
    return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def _describe_source(one: CheckedSource) -> dict:
    usable = None
    if one.columns is not None:
        usable = {"images": len(one.columns), "boxes": len(one.columns.boxes)}
    modes = Counter((header and header.mode) or "unknown" for header, *_ in one.facts.values())
    return {
        "name": one.source.name,
        "json_file": one.source.json_file,
        "image_root": one.source.image_root,
        "image_files": len(one.facts),
        "usable": usable,
        "counts": count_kinds(one.findings),
        "image_sizes": dict(_count_sizes(one).most_common()),
        "image_modes": dict(modes.most_common()),
    }


def _describe_side(side: Side, class_names: Sequence[str]) -> dict:
    return {
        "name": side.name,
        "images": len(side.file_names),
        "boxes": int(side.class_counts.sum()),
        "boxes_per_class": dict(zip(class_names, side.class_counts.tolist(), strict=True)),
        "images_per_condition": side.conditions,
    }


def _describe_split(summary: SplitSummary, class_names: Sequence[str]) -> dict:
    return {
        "split": summary.split,
        "images": summary.num_images,
        "boxes_per_class": {} if summary.note else dict(zip(class_names, summary.num_boxes, strict=True)),
        "images_with_a_neighbour_on_the_other_side": summary.num_leaking,
        "note": summary.note,
    }


def _count_sizes(one: CheckedSource) -> Counter:
    return Counter(f"{header.width}x{header.height}" for header, *_ in one.facts.values() if header)


def _join(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} | {pair[1]:,}"


def _shorten(text: str) -> str:
    return text if len(text) <= _EXAMPLE_WIDTH else text[: _EXAMPLE_WIDTH - 1] + "…"
