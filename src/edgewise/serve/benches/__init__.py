"""`edgewise bench NAME`: measurements that answer a question, each a function with typer annotations."""

from edgewise.base import Catalog

# The first one is what `edgewise bench` runs without a name.
BENCHES = Catalog("bench", __name__, {
    "speed": ".speed:measure_speed",
    "lookup": ".lookup:measure_lookup",
    "shadow": ".shadow:measure_shadow",
})  # fmt: skip
