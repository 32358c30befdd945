"""Writes small uncompressed TIFFs of kinds that no library at hand writes."""

import struct

import numpy as np

# TIFF type -> code of ``struct``: BYTE, SHORT, LONG, their signed counterparts, FLOAT and DOUBLE.
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}


def make_tiff(values, *, bits=None, photometric=None, is_big=False, order="<", tags=None, packed=None) -> bytes:
    """A TIFF of ``values``, (H, W) or (H, W, C).

    Args:
        bits: by default those of the array's type.
        tags: further ones, (type, values) by tag; those of ours are replaced.
        packed: the bytes of the pixels, where they are not those of the array.
    """
    values = np.atleast_3d(values)
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes() if packed is None else packed
    if photometric is None:
        photometric = 2 if channels >= 3 else 1
    sample_format = {"f": 3, "i": 2}.get(values.dtype.kind, 1)
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits or 8 * values.itemsize] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [16]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(data)]),
        339: (3, [sample_format] * channels),
    }
    if channels == 4:
        entries[338] = (3, [2])
    entries |= tags or {}
    inline, offset_code = (8, "Q") if is_big else (4, "I")
    start = b"II" if order == "<" else b"MM"
    directory = 16 + len(data)
    start += struct.pack(order + "HHHQ", 43, 8, 0, directory) if is_big else struct.pack(order + "HI", 42, directory)
    count = struct.pack(order + ("Q" if is_big else "H"), len(entries))
    extra_start = directory + len(count) + len(entries) * (20 if is_big else 12) + inline
    rows, extra = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        content = struct.pack(order + f"{len(numbers)}{_CODES[kind]}", *numbers)
        if len(content) > inline:
            content, extra = struct.pack(order + offset_code, extra_start + len(extra)), extra + content
        rows += struct.pack(order + "HH" + offset_code, tag, kind, len(numbers)) + content.ljust(inline, b"\0")
    return start.ljust(16, b"\0") + data + count + rows + bytes(inline) + extra


def pack_bits(values, bits: int) -> bytes:
    """Rows of ``values`` (H, W), each of so many bits, each row padded to whole bytes."""
    places = np.arange(bits)[::-1]
    table = (values[..., np.newaxis] >> places & 1).astype(np.uint8).reshape(len(values), -1)
    return np.packbits(table, axis=1).tobytes()
