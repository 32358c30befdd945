"""Pictures from the bytes of files: a closed list of formats, known by content; needs neither torch nor detectron2.

Nothing here knows paths, configs or data sets; :mod:`parking.data.image_io` is the door to it.
"""
