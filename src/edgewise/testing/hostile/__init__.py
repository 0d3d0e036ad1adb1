"""Row R04: model folders made to harm, and a watched process that opens each of them as a user's first command does.

Nothing outside the model's folder may be opened, no code or pickle file may be opened at all, nothing may be executed,
and no case may hang. `python -m edgewise.testing.hostile` prints one JSON line.
"""
