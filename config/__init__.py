"""Typed settings, defaults and content profiles, and the exception tree of the product."""
