"""Small helpers with one job each; they import nothing else of this package."""
