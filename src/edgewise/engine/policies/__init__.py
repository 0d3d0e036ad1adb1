"""Who does what in a step."""

from edgewise.base import Catalog

POLICIES = Catalog("policy", __name__, {
    "fcfs": ".fcfs:FirstComeFirstServed",
})
