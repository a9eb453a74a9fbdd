"""What is asked of the machine: atomic files, processes, signals, the environment record."""
