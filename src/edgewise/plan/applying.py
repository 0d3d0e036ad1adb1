"""What was measured on this machine before, told to a device before it loads a model. Nothing is measured here."""

from typing import Protocol, runtime_checkable

from edgewise.kernels.api import Device
from edgewise.kernels.choices import Known
from edgewise.plan.choices import Choices
from edgewise.plan.probe import fingerprint
from edgewise.plan.store import Store, cache_folder


@runtime_checkable
class Consulting(Protocol):
    """A device that has kernels to choose from."""

    notes: list[str]  # for the user

    def consult(self, known: Known) -> None: ...


def apply_measured(device: Device) -> None:
    """Devices without choices, and machines that were never measured, cost a look at a folder."""
    if not isinstance(device, Consulting) or not (cache_folder() / "tuning").is_dir():
        return
    store = Store(fingerprint(device.info.threads, device.info.isa))
    if store.complaint:
        device.notes.append(store.complaint)
    device.consult(Choices(store).known)
