"""Scores on annotated data."""
