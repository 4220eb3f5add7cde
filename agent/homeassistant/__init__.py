"""What Home Assistant needs to find the cameras by itself."""
