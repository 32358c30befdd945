"""Layouts of published weights files, one module for each family."""
