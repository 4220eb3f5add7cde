"""The Stillwatch daemon: capture, coherence, insight, events and MQTT."""

__version__ = "0.1.0"
