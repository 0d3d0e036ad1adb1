"""What kind of work a step is."""

from edgewise.base import Catalog

RUNNERS = Catalog("runner", __name__, {
    "text": ".text:TextRunner",
})
