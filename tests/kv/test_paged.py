"""The paged cache keeps the contract of every cache, on every device and in every type."""

import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Device
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.kv.api import KVCache
from edgewise.kv.paged import PagedCache
from edgewise.kv.types import cache_type, token_bytes
from edgewise.testing.kv_contract import HEAD_DIM, KV_HEADS, LAYERS, KVCacheContract


class TestF32(KVCacheContract):
    DTYPE = "f32"

    def make(self, device: Device, pages: int = 16, page_tokens: int = 16) -> KVCache:
        return PagedCache(device, LAYERS, KV_HEADS, HEAD_DIM, pages, page_tokens, self.DTYPE)


class TestF16(TestF32):
    DTYPE = "f16"


class TestBF16(TestF32):
    DTYPE = "bf16"


class TestInt8(TestF32):
    DTYPE = "int8"


def test_names_of_types() -> None:
    assert cache_type("auto", ["F32", "F32"]) == "f32"
    assert cache_type("auto", ["F32", "Q8_0"]) == "f16"
    assert [cache_type(name, ()) for name in ("BFloat16", "fp16", "int8")] == ["bf16", "f16", "int8"]
    with pytest.raises(Unsupported, match="Did you mean 'int8'"):
        cache_type("int9", ())


def test_bytes_of_a_token() -> None:
    assert token_bytes(16, 8, 64, "int8") / token_bytes(16, 8, 64, "f16") == (64 + 2) / 128
    assert token_bytes(16, 8, 64, "f16") == 2 * 16 * 8 * 64 * 2  # llama-3.2-1b: 32 KiB
    with pytest.raises(Unsupported, match="q3"):
        token_bytes(1, 1, 1, "q3")


def test_shape_is_checked() -> None:
    with pytest.raises(BadInput, match="0 KV heads"):
        PagedCache(ReferenceDevice(), 1, 0, 16, 4)
