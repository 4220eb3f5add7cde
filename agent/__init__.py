"""The Stillwatch daemon: capture, coherence, insight, events and MQTT."""

import os

__version__ = "0.1.0"

# The matrices here are small. A second thread of OpenBLAS gains nothing on them, and where the cores are busy the first
# waits for it, spinning: 45 ms instead of 0.3 for a Cholesky factor. OpenBLAS reads this when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
