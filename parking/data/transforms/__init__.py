"""Change the images and boxes of training samples, at random or as the caller says."""
