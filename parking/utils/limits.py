"""Limits of what is read from files that anyone may have made: generous for real data, and stated here only.

Sizes are in bytes. Whoever reads a file of one of these kinds takes the limit from here, and says in its error which
one was exceeded.
"""

_MB, _GB = 10**6, 10**9

#: A yaml config, its ``_BASE_`` files included; 4 s of parsing.
MAX_CONFIG_BYTES = 256 * 1024
#: Files of a config, each counted as often as a ``_BASE_`` names it; and how deep its values may be nested.
MAX_CONFIG_FILES = 32
MAX_CONFIG_DEPTH = 100
#: Values of a config that weights carry, each counted as often as it occurs.
MAX_CONFIG_VALUES = 100_000
#: A json with annotations, an image list or results; COCO's train2017 has 0.45 GB.
MAX_JSON_BYTES = 4 * _GB
#: Bits of an id of an image, annotation or category: hashes have 64. Larger whole numbers can be chosen so that Python
#: takes long to tell them apart.
MAX_ID_BITS = 64
#: An encoded picture.
MAX_IMAGE_BYTES = 1 * _GB
#: Pixels of a picture, by its header, before any of it is decoded, for all formats: a satellite picture of 16384 x
#: 16384. That one takes 0.8 GB as 8-bit RGB, up to 2.5 GB while it is decoded from 16 bits or turned, and up to 3.6 GB
#: as AVIF.
MAX_IMAGE_PIXELS = 16384 * 16384
#: Scans of a progressive JPEG, each of which may take as long as a whole picture; programs write about ten.
MAX_JPEG_SCANS = 100
#: A weights file or checkpoint.
MAX_WEIGHTS_BYTES = 20 * _GB
#: The pickle in a weights file, which only describes tensors: half a megabyte in the largest published model.
MAX_PICKLE_BYTES = 8 * 2**20
#: Files written by this product that say one thing, such as ``last_checkpoint``.
MAX_NOTE_BYTES = 64 * 1024
#: A path in a zip or json: bytes of UTF-8 (Linux allows 4096), and folders above the file.
MAX_PATH_BYTES = 2048
MAX_PATH_FOLDERS = 64
#: How many times the size of a zip its content may have, if that is more than MIN_BOMB_BYTES; deflate allows 1032.
MAX_ARCHIVE_RATIO = 200
MIN_BOMB_BYTES = 1 * _GB
#: The list of the files that this product wrote into a folder, 100 bytes or more each.
MAX_MARK_BYTES = 500 * _MB
#: ``recipe.json`` of an interrupted inference, which holds the names of all classes.
MAX_RECIPE_BYTES = 50 * _MB
