"""Checking a data set: everything that is wrong with it, and what is in it; needs neither torch nor detectron2."""
