"""Configuration from afar: a signed document comes in over the broker, and what became of it goes out."""
