"""One pass of a model over a batch: embed, blocks, head. Noted down by the device the first time, replayed after that.

A replay is one native call instead of some five a layer, and gives the same bits. What cannot be replayed (somebody
listens, the device or the cache does not offer it, the model looks at a value on the way) runs verb by verb.
"""

from collections.abc import Callable

from edgewise.kernels.api import Array, Device, Program
from edgewise.models.api import Batch, Model

TRIES = 3  # recordings that failed in a row before a kind of step is left as it is: a table may have grown meanwhile


class Pass:
    """model and device: what computes. replays: whether steps may be; an owner may say no.

    `why`: the reason for the last recording that could not be used. `states`: of the last run's outputs, where they are
    kept: (len(batch.outputs), dim), valid until the next run."""

    def __init__(self, model: Model, device: Device) -> None:
        self.model = model
        self.device = device
        self.replays = model.replays
        self.why = ""
        self.states: Array | None = None
        self._keeping = False
        self._others: list[Program | None] = [None, None, None]  # of the other way
        self._layers = range(model.spec.layers)
        self._programs: list[Program | None] = [None, None, None]  # no logits wanted, all rows', some rows'
        self._tries = [TRIES] * 3

    def keep_states(self, keep: bool) -> None:
        """From now on `states` is set. The head then runs by itself, after what is replayed: the same bits."""
        if keep != self._keeping:
            self._keeping, self.states = keep, None
            self._programs, self._others = self._others, self._programs

    def run(
        self, batch: Batch, below: int = 0, cut: Callable[[Array], tuple[Array, Batch]] | None = None
    ) -> Array | None:
        """Logits (len(batch.outputs), vocab) on the device, None when there are no outputs. The caller commits.

        cut: is given what the layers up to `below` say of all rows, and gives what the others go on with: the same, or
        some of the rows and their batch."""
        result = self._run(batch) if cut is None else self._verbs(batch, below + 1, cut)
        if not self._keeping:
            return result
        self.states = result
        return None if result is None else self.model.logits(result)

    def _run(self, batch: Batch) -> Array | None:
        wanted = len(batch.outputs)
        kind = 0 if not wanted else 1 if wanted == len(batch.ids) else 2
        if self.replays and batch.listen is None:
            program = self._programs[kind]
            if program is not None and program.fits(batch.positions):
                return program.run(self.device, batch.ids, batch.positions, batch.outputs, batch.plan)
            if self._tries[kind] and batch.kv.replays and len(batch.ids):
                return self._record(batch, kind)
        return self._verbs(batch)

    def _verbs(
        self, batch: Batch, below: int = 0, cut: Callable[[Array], tuple[Array, Batch]] | None = None
    ) -> Array | None:
        x = self.model.embed(batch)
        if cut is not None:
            x, batch = cut(self.model.blocks(x, batch, self._layers[:below]))
        x = self.model.blocks(x, batch, self._layers[below:])
        if not self._keeping or not len(batch.outputs):
            return self.model.head(x, batch) if len(batch.outputs) else None
        return self.model.states(x if len(batch.outputs) == len(batch.ids) else self.device.rows(x, batch.outputs))

    def _record(self, batch: Batch, kind: int) -> Array | None:
        recording = self.device.record(batch.ids, batch.positions, batch.outputs, batch.plan)
        if recording is None:
            self.replays = False
            return self._verbs(batch)
        try:
            result = self._verbs(batch)
        except BaseException:
            recording.close()
            raise
        self._programs[kind] = program = recording.close(result)
        self.why = recording.why
        self._tries[kind] = self._tries[kind] - 1 if program is None else TRIES
        return result
