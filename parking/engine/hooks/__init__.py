"""One hook for each thing that happens around an iteration."""
