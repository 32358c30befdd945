"""Limits for what is read from files, because anyone may have made a file; real data stays far below.

Sizes are in bytes. No limit is stated anywhere else. The error about a file that exceeds a limit states the limit.
"""

_MB, _GB = 10**6, 10**9

#: Size of a yaml config together with its ``_BASE_`` files; this much takes 4 s to parse.
MAX_CONFIG_BYTES = 256 * 1024
#: Number of files that a config reads; a file counts as often as a ``_BASE_`` names it.
MAX_CONFIG_FILES = 32
#: Depth to which the values of a config may be nested.
MAX_CONFIG_DEPTH = 100
#: Number of values in the config in a weights file; a value that occurs in several places counts for each of them.
MAX_CONFIG_VALUES = 100_000
#: Size of a json with annotations, an image list or results; COCO's train2017 has 0.45 GB.
MAX_JSON_BYTES = 4 * _GB
#: Number of bits of the id of an image, annotation or category, enough for a 64-bit hash. Longer integers can be chosen
#: such that all have the same hash in Python, which makes a dict of them very slow.
MAX_ID_BITS = 64
#: Size of an image file.
MAX_IMAGE_BYTES = 1 * _GB
#: Number of pixels of a picture, enough for satellite pictures. The header is checked before the picture is decoded.
#: A picture of this size takes 0.8 GB as 8-bit RGB, up to 2.5 GB while it is decoded from 16 bits or turned, and up to
#: 3.6 GB while it is decoded from AVIF.
MAX_IMAGE_PIXELS = 16384 * 16384
#: Number of scans of a progressive JPEG. Programs write about ten; each may take as long to decode as a whole picture.
MAX_JPEG_SCANS = 100
#: Size of a weights file or checkpoint.
MAX_WEIGHTS_BYTES = 20 * _GB
#: Size of the pickle in a weights file, which only describes tensors; the largest published model has half a megabyte.
MAX_PICKLE_BYTES = 8 * 2**20
#: Size of a file in which this product notes a single thing, such as ``last_checkpoint``.
MAX_NOTE_BYTES = 64 * 1024
#: Length of a path in a zip or json, in bytes of UTF-8; Linux allows 4096.
MAX_PATH_BYTES = 2048
#: Number of folders in a path in a zip or json, and of nested folders that are searched for files.
MAX_PATH_FOLDERS = 64
#: Ratio of the unpacked size of a zip to its own size; deflate reaches up to 1032.
MAX_ARCHIVE_RATIO = 200
#: A zip must not exceed MAX_ARCHIVE_RATIO if its unpacked size is above this.
MIN_BOMB_BYTES = 1 * _GB
#: Size of the mark that lists what this product wrote into a folder (``marks.py``), 100 bytes or more for each file.
MAX_MARK_BYTES = 500 * _MB
#: Length of a line in the journal of an inference, which holds the results of one batch.
MAX_JOURNAL_LINE_BYTES = 250 * _MB
#: Size of ``recipe.json`` of an interrupted inference, which holds the names of all classes.
MAX_RECIPE_BYTES = 50 * _MB
