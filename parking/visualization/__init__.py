"""Draw boxes with names and scores, charts of data, and sheets of pictures; needs neither torch nor detectron2."""
