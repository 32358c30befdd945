"""Numbers that more than one part must agree on."""

#: Gray level (0..255) around a letterboxed image, in training, inference and the padding of a batch alike.
PAD_VALUE = 114
