"""What vstore costs, as ratios to the fastest honest code on the bare driver. Run `python -m benchmarks --help`."""
