"""L5: words to tokens and back."""
