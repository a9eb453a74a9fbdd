"""What the commands do, without a terminal: evaluate a run, sweep a grid, compare predictions."""
