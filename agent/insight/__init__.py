"""What the picture means: semantic change and anomaly, from token features and flow that are already there."""
