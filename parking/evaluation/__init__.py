"""Scores on annotated data and the files a prediction run leaves behind.

Import what is needed from its own module: :mod:`.detections` and :mod:`.submission` need neither torch nor detectron2.
"""
