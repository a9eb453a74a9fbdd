"""Files, processes, signals and the description of the machine."""
