"""The table of boxes that inference, scores and result files have in common."""
