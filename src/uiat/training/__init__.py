"""Training: settings to data and model, the step, the loop, validation, cost."""
