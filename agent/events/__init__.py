"""What happened: documents, the outbox that keeps them, pictures beside them, and where they go."""
