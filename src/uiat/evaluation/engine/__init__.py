"""How an evaluation runs: the plan, one stage after another, outcomes per image, a state file to resume from."""
