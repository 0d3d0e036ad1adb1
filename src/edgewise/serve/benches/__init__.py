"""`edgewise bench NAME`: measurements that answer a question, each a function with typer annotations."""

from edgewise.base import Catalog

# The first one is what `edgewise bench` runs without a name.
BENCHES = Catalog("bench", __name__, {
    "speed": ".speed:measure_speed",
    "fp8-int8": ".fp8_int8:measure_fp8_int8",
    "lookup": ".lookup:measure_lookup",
    "tuner": ".tuner:measure_tuner",
    "sched": ".sched:measure_scheduling",
    "batching": ".batching:measure_batching",
    "kv": ".kv:measure_kv",
    "overheads": ".overheads:measure_overheads",
    "shadow": ".shadow:measure_shadow",
    "int4": ".int4:measure_int4",
    "speculation": ".speculation:measure_speculation",
    "mixes": ".mixes:measure_mixes",
    "capped-drafts": ".capped_drafts:measure_capped_drafts",
    "streamed-drafts": ".streamed_drafts:measure_streamed_drafts",
    "memory": ".memory:measure_memory",
    "offload": ".offload:measure_offload",
    "layers": ".layers:measure_layers",
    "flash": ".flash:measure_flash",
    "window": ".window:measure_window",
    "structured": ".structured:measure_structured",
})  # fmt: skip
