"""Rules: questions with yes or no that a camera is asked when what it shows has changed, and what their yes leads to.

    frame loop ─▶ `CameraRules` (what is due, what the answers come to) ─▶ `Asking` (a thread of its own: the decoder)
                          └──── K of N, duration, clear delay, cooldown: `Firing` ────▶ alert

`stillwatch rules test` runs the same on a clip (`backtest`), and `cmd/rules` changes them while they run (`RuleBook`).
"""
