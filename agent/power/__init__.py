"""Power and heat: what the board measures of itself, and how the agent makes itself smaller before the board does it.

sensors (sysfs) → policy (one step of `LADDER`, with hysteresis) → guard (cameras, retained status, metrics)
"""
