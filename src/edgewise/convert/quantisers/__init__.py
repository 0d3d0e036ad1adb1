"""How weights are narrowed. A quantiser sees a few rows at a time; `none` is the null member."""

from edgewise.base import Catalog

QUANTISERS = Catalog("quantiser", __name__, {
    "none": ".none:NoQuantiser",
    "rtn": ".rtn:RtnQuantiser",
    "hqq": ".hqq:HqqQuantiser",
    "awq": ".awq:AwqQuantiser",
    "gptq": ".gptq:GptqQuantiser",
})
