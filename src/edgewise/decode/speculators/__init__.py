"""Who guesses the next tokens before the model has computed them."""

from edgewise.base import Catalog

SPECULATORS = Catalog("speculator", __name__, {
    "none": ".none:NoSpeculator",
    "ngram": ".ngram:NgramSpeculator",
    "suffix": ".suffix:SuffixSpeculator",
})
