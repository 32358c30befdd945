"""Hooks that the trainer calls before and after each iteration; each has one job."""
