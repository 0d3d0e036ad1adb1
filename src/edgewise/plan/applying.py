"""What was measured on this machine before, told to a device before it loads a model; and who goes on measuring.

A machine that was never measured costs a look at a folder: everything else is imported when it is needed.
"""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgewise.base import Incompatible
from edgewise.kernels.api import Device
from edgewise.kernels.choices import Known
from edgewise.kernels.tuning import Tunable
from edgewise.plan.folder import cache_folder

if TYPE_CHECKING:
    from edgewise.plan.tuning import KernelTuning


@runtime_checkable
class Consulting(Protocol):
    """A device that has kernels to choose from."""

    notes: list[str]  # for the user

    def consult(self, known: Known) -> None: ...


def apply_measured(device: Device, tuner: str = "none") -> "KernelTuning | None":
    """Sets what the store knows. Returns what tunes the device between the steps of a model, when a tuner is named.

    Raises Incompatible when the device has nothing to tune, Unsupported when there is no such tuner."""
    if isinstance(device, Consulting) and (cache_folder() / "tuning").is_dir():
        _apply(device, device)
    return None if tuner == "none" else _begin(device, tuner)


def _apply(device: Device, consulting: Consulting) -> None:
    from edgewise.plan.choices import Choices
    from edgewise.plan.probe import fingerprint
    from edgewise.plan.store import Store
    from edgewise.plan.tuning import apply_stored

    store = Store(fingerprint(device.info.threads, device.info.isa))
    if store.complaint:
        consulting.notes.append(store.complaint)
    consulting.consult(Choices(store).known)
    if isinstance(device, Tunable):
        apply_stored(device, store)


def _begin(device: Device, tuner: str) -> "KernelTuning":
    from edgewise.plan.probe import fingerprint, last_cache_bytes
    from edgewise.plan.store import Store
    from edgewise.plan.tuners import TUNERS
    from edgewise.plan.tuning import KernelTuning

    TUNERS.load(tuner.partition(":")[0])
    if not isinstance(device, Tunable):
        name = device.info.name
        raise Incompatible(f"tuner '{tuner}' needs a device with settings; '{name}' has none. Drop the tuner.")
    store = Store(fingerprint(device.info.threads, device.info.isa))
    machine: Any = device
    return KernelTuning(machine, lambda c: TUNERS.build(tuner, candidates=c), store, cache_bytes=last_cache_bytes())
