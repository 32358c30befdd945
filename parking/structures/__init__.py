"""The table of boxes that inference, evaluation and result files share."""
