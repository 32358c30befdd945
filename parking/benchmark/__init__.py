"""The measurements that tools/benchmark.py makes, one module for each ``--task``."""
