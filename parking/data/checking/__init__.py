"""Find what is wrong with a data set, and describe what is in it; needs neither torch nor detectron2."""
