"""Stand-in for PyCUDA: the calls of surface.json, with the driver's rules, on the simulated device."""

VERSION = (2026, 1)
VERSION_TEXT = "2026.1"
