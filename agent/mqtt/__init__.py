"""The way to the broker: topics, one connection, delivery of the outbox, retained states and commands."""
