"""The Stillwatch daemon: capture, coherence, insight, events and MQTT."""
