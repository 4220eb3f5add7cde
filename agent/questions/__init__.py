"""Questions of people about what a camera sees now or saw in the last seconds: `cmd/ask`.

frame loop ─▶ `Moments` (what was seen of late, as tokens) ─▶ `Answering` (one question at a time) ─▶ parts, result
"""
