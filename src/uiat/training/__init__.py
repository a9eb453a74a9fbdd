"""Training: from settings to data and model, the step, the loop, validation, guards, cost."""
