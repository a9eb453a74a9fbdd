"""Engine of an evaluation: the plan, its stages, outcomes per image, and a state file to resume from."""
