"""The challenge's submission file: selects the boxes that fit, measures the AP lost by that, and checks the file."""
