"""Temporal coherence: keep what was computed, move what moved, re-encode what is stale."""
