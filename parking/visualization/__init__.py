"""Drawing of boxes with names and scores, and overviews of several pictures; needs neither torch nor detectron2."""
