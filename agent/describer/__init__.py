"""Words from a vision server: what is sent, what comes back, and when to leave the server alone."""
