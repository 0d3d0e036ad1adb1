"""No rule: the logits stay as the model gave them.

Paper:  none
Exact.
Needs:  nothing
Cost:   nothing
Status: kept
"""

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats


class NoRule:
    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        return logits
