"""Read sizes and orientations of images from the files' headers, and decide which pictures EXIF turns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from parking.data.checking.findings import Finding
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import APPLY, IGNORE, is_applied
from parking.data.image_io import UnreadableImageError, read_image_header
from parking.utils.text import printable

#: A function that takes paths of images and returns for each the header, or an error that says what is wrong.
HeaderReader = Callable[[Sequence[str]], Sequence[Header | UnreadableImageError]]

# Use more threads than CPUs, because reading headers is mostly waiting for the disk.
_NUM_THREADS = 16


def read_headers(paths: Sequence[str]) -> list[Header | UnreadableImageError]:
    """Return, in order, the header of each image or an error that says what is wrong with the file."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(_read_header, paths))


def _read_header(path: str) -> Header | UnreadableImageError:
    try:
        return read_image_header(path)
    except UnreadableImageError as e:
        return e


def settle_sizes(
    records: Sequence[dict], headers: Sequence[Header | UnreadableImageError], policy: str
) -> list[Finding]:
    """Decide for each image of one json or image list whether it is turned upright, and add sizes that are not stated.

    Args:
        records: dicts with ``file_name`` and, if they are stated, ``height`` and ``width``. Changed in place: a picture
            that is not stored upright gets ``exif_orientation``, "apply" or "ignore"; a record without size gets
            ``height`` and ``width`` of the picture as it will be read.
        headers: from :func:`read_headers`; an image with an error is skipped.
        policy: INPUT.EXIF_ORIENTATION.

    Returns:
        Findings, by ``file_name``, about pictures that are not stored upright and files with several pictures.
    """
    turned = [
        (record, header, _get_stated(record))
        for record, header in zip(records, headers, strict=True)
        if isinstance(header, Header) and header.orientation != 1
    ]
    decisions = [is_applied(policy, header.orientation, header.stored_size, stated) for _, header, stated in turned]
    # Turn the pictures about which "auto" cannot decide only if it can decide about a picture with a stated size, and
    # turns every such picture upright.
    known = {decision for (*_, stated), decision in zip(turned, decisions, strict=True) if stated is not None} - {None}
    rest = APPLY if known == {True} else IGNORE
    for (record, _, _), decision in zip(turned, decisions, strict=True):
        record["exif_orientation"] = rest if decision is None else APPLY if decision else IGNORE
    for record, header in zip(records, headers, strict=True):
        if isinstance(header, Header) and _get_stated(record) is None:
            record["height"], record["width"] = header.get_size(is_upright=record.get("exif_orientation") == APPLY)
    return [*_describe_turned(turned, decisions), *_describe_several(records, headers)]


def settle_images(
    images: Sequence[Mapping], policy: str, stated: Mapping[int | str, tuple[int, int]]
) -> tuple[list[dict], list[Finding]]:
    """Apply :func:`settle_sizes` to the images of an inference, after reading their headers.

    Args:
        images: dicts with ``file_name``, ``relative_path``, ``image_id`` and, if a list states them, ``height`` and
            ``width``.
        policy: INPUT.EXIF_ORIENTATION.
        stated: image id -> height and width, from annotations. They serve only to decide about orientations; a picture
            of another size is used, and a finding names it.

    Returns:
        ``height``, ``width`` and ``exif_orientation`` to add to each image's dict, as far as its header can be read;
        and findings that name the relative paths.
    """
    headers = read_headers([image["file_name"] for image in images])
    additions, findings = [], []
    for image, header in zip(images, headers, strict=True):
        known, annotated = (image.get("height"), image.get("width")), stated.get(image["image_id"])
        if None in known and annotated is not None and isinstance(header, Header):
            if annotated not in (header.stored_size, header.get_size(is_upright=True)):
                size = f"{header.width} x {header.height}"
                detail = f"is {size} pixels, the json says {annotated[1]} x {annotated[0]}"
                findings.append(Finding("size_differs", printable(image["relative_path"]), detail))
            elif header.orientation != 1:
                known = annotated
        found = {} if None in known else {"height": known[0], "width": known[1]}
        additions.append({"file_name": image["relative_path"], **found})
    findings += settle_sizes(additions, headers, policy)
    for addition in additions:
        del addition["file_name"]
    return additions, findings


def _describe_several(records, headers) -> Iterator[Finding]:
    for record, header in zip(records, headers, strict=True):
        if isinstance(header, Header) and header.has_more:
            detail = "holds further frames or pages, which are not read"
            yield Finding("several_pictures", printable(record["file_name"]), detail)


def _describe_turned(turned, decisions) -> Iterator[Finding]:
    for (record, header, stated), decision in zip(turned, decisions, strict=True):
        name = printable(record["file_name"])
        is_upright = record["exif_orientation"] == APPLY
        what = f"has the EXIF orientation {header.orientation}"
        if decision is None and stated in (header.stored_size, header.stored_size[::-1]):
            done = "turned upright like the rest of the json" if is_upright else "used as stored"
            detail = f"{what} and is {done}; its size fits either way, so set INPUT.EXIF_ORIENTATION if this is wrong"
            yield Finding("exif_ambiguous", name, detail)
        elif decision is not None:
            yield Finding("exif_applied" if decision else "exif_ignored", name, what)


def _get_stated(record: dict) -> tuple[int, int] | None:
    return (record["height"], record["width"]) if "height" in record else None
