"""Check data sets for everything that can be wrong with them; each file is read once."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parking.data.checking.sources import Source
from parking.data.datasets.categories import Categories, collect_categories, settle_categories
from parking.data.datasets.columns import Columns
from parking.data.datasets.file_names import FileIndex, index_folder
from parking.data.datasets.json_io import find_list, is_too_large_id, read_json
from parking.data.datasets.listing import list_files
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import APPLY, AUTO
from parking.data.image_io import ImageFacts, UnreadableImageError, inspect_image
from parking.utils.processes import run_in_processes
from parking.utils.text import printable

from .findings import Finding
from .inspection import inspect_content, inspect_names

# Number of images that a process takes at once: many enough that messages cost little, few enough that the progress bar
# keeps moving.
_CHUNK_SIZE = 8


@dataclass
class CheckedSource:
    """A source (a json with its images) and what was found in it.

    Attributes:
        class_names: by contiguous class index.
        columns: what a loader would use under the policy "repair"; None if the json could not be read.
        facts: by path, of every image that the json lists and of every other image file below the folder. A file
            that no json lists and that lies below the folders of several sources belongs to the first of them.
    """

    source: Source
    class_names: list[str] = field(default_factory=list)
    columns: Columns | None = None
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, ImageFacts] = field(default_factory=dict)


@dataclass
class _Opened:
    source: Source
    content: dict | None
    findings: list[Finding]
    files: FileIndex
    # File path -> name in the json, for the images of the json whose file exists.
    listed: dict[str, str]

    def name_of(self, path: str) -> str:
        return printable(self.listed.get(path) or os.path.relpath(path, self.files.root))


def check_sources(
    sources: Sequence[Source],
    *,
    num_workers: int = 1,
    exif_orientation: str = AUTO,
    allow_outside: bool = False,
    start: Callable[[int], object] = lambda total: None,
    progress: Callable[[int], object] = lambda count: None,
) -> list[CheckedSource]:
    """Read all json files and decode all images of ``sources``; return what was found, by source.

    Args:
        num_workers: processes that decode images.
        exif_orientation: INPUT.EXIF_ORIENTATION.
        allow_outside: DATASETS.ALLOW_OUTSIDE.
        start: called once, with the number of images.
        progress: called with the number of images done since the last call.

    Raises:
        UserError: a folder cannot be listed.
    """
    opened = [_open(source, allow_outside) for source in sources]
    owned = _distribute(opened)
    paths = list(dict.fromkeys(path for one in owned for path in one))
    start(len(paths))
    found = run_in_processes(
        inspect_image, paths, num_workers=num_workers, chunk_size=_CHUNK_SIZE, done=lambda path: progress(1)
    )
    facts = dict(zip(paths, found, strict=True))
    checked = [
        _check(one, categories, {path: facts[path] for path in own}, exif_orientation)
        for one, categories, own in zip(opened, _read_categories(opened), owned, strict=True)
    ]
    _find_same_pictures(opened, checked)
    return checked


def _open(source: Source, allow_outside: bool) -> _Opened:
    content, findings = read_json(source.json_file)
    files = index_folder(os.path.abspath(source.image_root), allow_outside=allow_outside)
    listed = {}
    for image in find_list(content or {}, "images")[0]:
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(file_name, str) and (path := files.find(file_name)):
            listed.setdefault(path, file_name)
    return _Opened(source, content, findings, files, listed)


def _distribute(opened: Sequence[_Opened]) -> list[list[str]]:
    """Return the image paths of each source: those that its json lists, and files below its folder that no json lists.

    A file that lies below the folders of several sources is given to the first of them only.
    """
    listed = {path for one in opened for path in one.listed}
    distributed: set[str] = set()
    owned = []
    for one in opened:
        # Skip pictures that this product wrote: list_files leaves them out.
        paths = map(one.files.path, list_files(one.files.root, one.files.names).names)
        rest = [path for path in paths if path not in listed and path not in distributed]
        distributed.update(rest)
        owned.append([*one.listed, *rest])
    return owned


def _read_categories(opened: Sequence[_Opened]) -> list[Categories]:
    """Return the classes of each source: those given with the source, or else those of its json.

    If a json has no categories, the category ids in its annotations serve as classes, so that the rest can be checked.
    """
    facts = [collect_categories(one.content or {}) for one in opened]
    categories = []
    for one, found, (names, findings) in zip(opened, facts, settle_categories(facts), strict=True):
        if one.source.categories is not None:
            names, findings = one.source.categories, []
        elif not names:
            names = {int(i): str(int(i)) for i in sorted(found.used) if not is_too_large_id(int(i))}
        categories.append(Categories(names, findings))
    return categories


def _check(
    opened: _Opened, categories: Categories, facts: Mapping[str, ImageFacts], exif_orientation: str
) -> CheckedSource:
    """Check one source, given the ``facts`` about its images."""

    def read_headers(paths: Sequence[str]) -> list[Header | UnreadableImageError]:
        # Use the header of a damaged file, too, because boxes can be checked against its size.
        return [facts[path].header or UnreadableImageError(facts[path].detail, facts[path].problem) for path in paths]

    source = opened.source
    result = CheckedSource(source, findings=list(opened.findings), facts=dict(facts))
    if opened.content is not None:
        result.findings += categories.findings
        result.class_names = list(categories.names.values())
        inspection = inspect_content(
            opened.content,
            categories.names,
            opened.files,
            read_headers=read_headers,
            with_annotations=source.has_annotations,
            exif_orientation=exif_orientation,
        )
        result.columns = inspection.columns
        unlisted = {opened.name_of(path) for path in facts if path not in opened.listed}
        result.findings += [
            finding for finding in inspection.findings if finding.kind != "image_unlisted" or finding.where in unlisted
        ]
        result.findings += _compare_sizes(inspection.columns, facts)
    else:
        result.class_names = list((source.categories or {}).values())
        result.findings += inspect_names([], opened.files)
    # Report a file once: if it is unreadable and the json does not state its size, inspect_content has reported it.
    known = {(finding.kind, finding.where) for finding in result.findings}
    for finding in _describe_files(opened, result.facts):
        if (finding.kind, finding.where) not in known:
            result.findings.append(finding)
    return result


def _compare_sizes(columns: Columns, facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    lists = (columns.names, columns.file_names, columns.heights, columns.widths, columns.exif_orientations)
    for name, path, height, width, orientation in zip(*lists, strict=True):
        if facts[path].problem is None:
            size = facts[path].header.get_size(is_upright=orientation == APPLY)
            if size != (height, width):
                detail = f"is {size[1]} x {size[0]} pixels, the json says {width} x {height}"
                yield Finding("size_differs", printable(name), detail)


def _describe_files(opened: _Opened, facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    for path, found in facts.items():
        name = opened.name_of(path)
        if found.problem is not None:
            yield Finding(found.problem, name, found.detail.removeprefix(f"The image '{path}' ").rstrip("."))
            continue
        if found.header.has_more:
            yield Finding("several_pictures", name, "holds further frames or pages, which are not read")
        if found.header.mode != "RGB":
            yield Finding("not_8bit_rgb", name, f"is stored as {found.header.mode or 'an unknown mode'}")


def _find_same_pictures(opened: Sequence[_Opened], checked: Sequence[CheckedSource]) -> None:
    first: dict[str, str] = {}
    for one, result in zip(opened, checked, strict=True):
        for path, found in result.facts.items():
            label = f"'{one.name_of(path)}' ({one.source.name})"
            if found.content_hash and first.setdefault(found.content_hash, label) is not label:
                detail = f"shows the same as {first[found.content_hash]}"
                result.findings.append(Finding("same_picture", one.name_of(path), detail))
