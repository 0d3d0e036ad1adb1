"""Who guesses the next tokens before the model has computed them."""

from edgewise.base import Catalog

SPECULATORS = Catalog("speculator", __name__, {
    "none": ".none:NoSpeculator",
    "ngram": ".ngram:NgramSpeculator",
    "suffix": ".suffix:SuffixSpeculator",
    "draft": ".draft:DraftModelSpeculator",
    "streaming": ".streaming:StreamingSpeculator",
    "medusa": ".medusa:MedusaSpeculator",
    "auto": ".auto:AutoSpeculator",
})
WITH_MODEL = "draft"  # the member that needs a model of its own
