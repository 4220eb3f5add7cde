"""`stillwatch doctor --acceptance`: proves on the machine at hand that what it uses does what the host's own parts do,
and measures what that costs in time and power. The report is what an owner of a board sends back.

    meter     milliseconds and watts of a call
    backends  what this machine uses, and the host's own to compare it with
    capturing a clip decoded by the board's engines, and by the CPU
    picturing a frame's way to the encoder: the model's picture, and patches
    stages    all of that, and each image operation: the difference from the host's
    flow      dense flow against the true flow of rendered scenes
    encoding  the encoder: cosines with the host's, and its cost curve
    soak      the whole agent for some minutes: memory, descriptors, faults, heat
    report    all of it, and the verdict
"""

from agent.acceptance.report import accept, lines

__all__ = ["accept", "lines"]
