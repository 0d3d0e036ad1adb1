"""How one token is drawn from one row of logits."""

from edgewise.base import Catalog

SAMPLERS = Catalog("sampler", __name__, {
    "greedy": ".greedy:GreedySampler",
    "standard": ".standard:StandardSampler",
})
