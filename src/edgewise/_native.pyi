# Types of the compiled extension, one section per room of csrc/.
import numpy as np
import numpy.typing as npt

# --- formats ---
def formats() -> list[tuple[str, int, int, int, bool]]: ...  # name, ggml type, weights and bytes per block, writable
def dequantize(name: str, packed: npt.NDArray[np.uint8], out: npt.NDArray[np.float32], threads: int) -> None: ...
def quantize(name: str, values: npt.NDArray[np.float32], out: npt.NDArray[np.uint8], threads: int) -> None: ...
