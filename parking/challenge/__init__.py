"""Code that only the 2022 challenge needs: its classes, file names, splits, layout, zip files and submission."""
