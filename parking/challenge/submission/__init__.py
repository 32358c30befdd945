"""The challenge's submission file: which boxes fit, what they cost in AP, and whether a file is valid."""
