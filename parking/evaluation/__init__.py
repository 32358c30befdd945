"""Score detections on annotated data."""
