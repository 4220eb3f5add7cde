"""One engine that changes the configuration of a running agent, whoever asks for the change."""
