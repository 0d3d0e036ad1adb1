"""Who guesses the next tokens before the model has computed them."""

from edgewise.base import Catalog

SPECULATORS = Catalog("speculator", __name__, {
    "none": ".none:NoSpeculator",
    "ngram": ".ngram:NgramSpeculator",
    "suffix": ".suffix:SuffixSpeculator",
    "draft": ".draft:DraftModelSpeculator",
    "streaming": ".streaming:StreamingSpeculator",
    "medusa": ".medusa:MedusaSpeculator",
    "llmcad": ".llmcad:LlmCadSpeculator",
    "specmemo": ".specmemo:SpecMemoSpeculator",
    "auto": ".auto:AutoSpeculator",
})
WITH_MODEL = "draft"  # the member that needs a model of its own
TEXT_BYTES = {"ngram": 300, "suffix": 700}  # those that keep texts: bytes of Python objects for each token
