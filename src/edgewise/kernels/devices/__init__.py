"""The machines we can compute on. `reference` is the slow truth; `cpu` is csrc; `npu` emulates an accelerator."""

from edgewise.base import Catalog

DEVICES = Catalog("device", __name__, {
    "reference": ".reference:ReferenceDevice",
    "cpu": ".cpu:CpuDevice",
    "npu": ".npu:NpuDevice",
})
