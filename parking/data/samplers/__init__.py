"""Choose the order in which a training sees its images."""
