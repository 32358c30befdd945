"""The challenge's submission file: which boxes fit, what leaving out the rest costs in AP, and file checks."""
