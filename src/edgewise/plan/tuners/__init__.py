"""Who decides which candidate is measured next, and which one has won."""

from edgewise.base import Catalog

TUNERS = Catalog("tuner", __name__, {
    "none": ".none:NoTuner",
    "halving": ".halving:SuccessiveHalving",
    "exhaustive": ".exhaustive:Exhaustive",
})  # fmt: skip
USUAL, LONGEST = "halving", "exhaustive"
