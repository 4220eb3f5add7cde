"""What lets the agent be left alone: heartbeats, watchdog, health, memory ceiling, format of the state folder."""
