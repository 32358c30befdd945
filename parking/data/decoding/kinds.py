"""Tell what a file is by its first bytes, whatever its name."""

import re

from parking.data.decoding.problem import ImageProblem, unsupported

#: The only formats whose decoders are ever called.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
#: Number of bytes at the beginning of a file that :func:`identify` and :func:`describe_other` look at.
NUM_BYTES = 512

PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
# Possible sizes of the second header of a BMP, which follows the file header.
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

# Brands that the "ftyp" box of an ISO media file may name.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_CAMERA_RAW_BRANDS = frozenset({b"crx "})

_VIDEO = "a video"
_GIVE_VIDEO = "give it as a video, under a video's extension"
_CONVERT = "convert it to 8-bit PNG or JPEG"
# Kinds of files that are not read: (what the file is, what the user can do, how such files may begin).
_OTHERS = (
    (_VIDEO, _GIVE_VIDEO, (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"OggS")),  # Matroska and WebM, Flash, Ogg
    (_VIDEO, _GIVE_VIDEO, (b"\0\0\x01\xba", b"\0\0\x01\xb3", b"0&\xb2u\x8ef\xcf\x11")),  # MPEG, Windows Media
    ("a JPEG XL picture", _CONVERT, (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ("a JPEG XR picture", _CONVERT, (b"II\xbc",)),
    ("a PostScript program (EPS)", _CONVERT, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("a PDF document", _CONVERT, (b"%PDF",)),
    ("a Photoshop document", _CONVERT, (b"8BPS",)),
    ("a GIMP document", _CONVERT, (b"gimp xcf",)),
    ("an OpenEXR picture of floating-point values", _CONVERT, (b"\x76\x2f\x31\x01",)),
    ("a Radiance HDR picture of floating-point values", _CONVERT, (b"#?RADIANCE",)),
    ("a PFM picture of floating-point values", _CONVERT, (b"Pf", b"PF")),
    ("a PAM picture", _CONVERT, (b"P7",)),
    ("an icon", _CONVERT, (b"\0\0\x01\0", b"icns")),
    ("a camera's raw file", "convert it to JPEG", (b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0")),
    ("an archive", "unpack it", (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!")),
    ("a Git LFS pointer, not the file itself", "fetch the files with 'git lfs pull'", (b"version https://git-lfs",)),
)


def identify(start: bytes) -> str:
    """Return the format of a file, one of ``FORMATS``; "" if it has none of them.

    Args:
        start: the first ``NUM_BYTES`` bytes of the file or more; all of a shorter file.
    """
    if start[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if start[:8] == PNG_START:
        return "PNG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:4] in TIFF_STARTS and start[8:10] != b"CR":
        return "TIFF"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if start.startswith(_JPEG2000_STARTS):
        return "JPEG2000"
    if _read_brands(start) & _AVIF_BRANDS:
        return "AVIF"
    if re.match(rb"P[1-6][\s#]", start):
        return "PPM"
    return ""


def describe_other(start: bytes) -> ImageProblem:
    """Return the error for a file whose format :func:`identify` does not know; ``start`` is the file's beginning."""
    brands = _read_brands(start)
    if brands & _HEIC_BRANDS:
        return unsupported("a HEIC picture", "convert it to JPEG")
    if brands & _CAMERA_RAW_BRANDS or start[8:10] == b"CR":
        return unsupported("a camera's raw file", "convert it to JPEG")
    if brands:
        return unsupported(_VIDEO, _GIVE_VIDEO)
    # An AVI video, or an MPEG transport stream.
    if (start[:4] == b"RIFF" and start[8:12] == b"AVI ") or (start[:1] == b"\x47" and start[188:189] == b"\x47"):
        return unsupported(_VIDEO, _GIVE_VIDEO)
    if start[128:132] == b"DICM":
        return unsupported("a DICOM file")
    for what, advice, starts in _OTHERS:
        if start.startswith(starts):
            return unsupported(what, advice)
    if not start.strip(b"\0"):
        return ImageProblem("image_not_image", "it begins with zeros and is not a picture; a download or disk failed")
    return ImageProblem("image_not_image", _describe_text(start) or "it is not a picture of a known format")


def _describe_text(start: bytes) -> str:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is HTML, not a picture; its download failed"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "it is an SVG drawing, which has no pixels; draw it as PNG"
    is_text = not re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", text)
    return "it is text, not a picture" if is_text and text.isascii() else ""


def _read_brands(start: bytes) -> set[bytes]:
    """Return the brands that an ISO media file names, major and compatible; an empty set for any other file."""
    if start[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[8:12]} | {start[i : i + 4] for i in range(16, end - 3, 4)}
