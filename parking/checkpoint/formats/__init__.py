"""Layouts of published weights files, one module a family."""
