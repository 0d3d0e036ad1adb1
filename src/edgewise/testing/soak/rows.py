"""Every row by its name."""

from edgewise.testing.soak import Row
from edgewise.testing.soak.bombs import bombs
from edgewise.testing.soak.caps import memory_cap
from edgewise.testing.soak.chaos import batch_invariance, end_states
from edgewise.testing.soak.edges import context_edges
from edgewise.testing.soak.ending import sigterm
from edgewise.testing.soak.extremes import extremes
from edgewise.testing.soak.killing import kills
from edgewise.testing.soak.leaks import leaks
from edgewise.testing.soak.memory import allocator, disk_faults
from edgewise.testing.soak.poison import not_finite, poison
from edgewise.testing.soak.races import load_races
from edgewise.testing.soak.rude import disconnects, slow_clients
from edgewise.testing.soak.usage import usage
from edgewise.testing.soak.words import utf8_streams

ROWS: dict[str, Row] = {
    "R05": bombs,
    "R06": extremes,
    "R08": poison,
    "R09": disconnects,
    "R10": sigterm,
    "R11": kills,
    "R12": disk_faults,
    "R13": memory_cap,
    "R14": slow_clients,
    "R15": end_states,
    "R16": leaks,
    "R17": usage,
    "R18": load_races,
    "R19": batch_invariance,
    "R21": utf8_streams,
    "R22": context_edges,
    "R23": not_finite,
    "R24": allocator,
}
