"""Decode pictures of a fixed list of formats, recognised by content; needs neither torch nor detectron2.

This package works on bytes and knows no configs or data sets; to read image files, call :mod:`parking.data.image_io`.
"""
