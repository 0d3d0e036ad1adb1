"""The family's chat format: how messages become tokens. The same as chat_template.jinja, which travels with the files.

<|bos|><|user|>question<|end|><|assistant|><|think|>thinking<|/think|>answer<|end|><|eos|>
"""

from tokenizers import Tokenizer

from edgewise.train.tasks import Example
from edgewise.train.tokenizer import BOS, END, EOS, id_of

USER, ASSISTANT, THINK, THOUGHT = "<|user|>", "<|assistant|>", "<|think|>", "<|/think|>"


def prompt_ids(tokenizer: Tokenizer, example: Example) -> list[int]:
    """Tokens up to where the assistant begins to speak."""
    mark = {token: id_of(tokenizer, token) for token in (BOS, USER, END, ASSISTANT)}
    return [mark[BOS], mark[USER], *plain(tokenizer, example.question), mark[END], mark[ASSISTANT]]


def reply_ids(tokenizer: Tokenizer, example: Example) -> list[int]:
    """What the assistant ought to say, end marks included."""
    mark = {token: id_of(tokenizer, token) for token in (EOS, END, THINK, THOUGHT)}
    thinking = [mark[THINK], *plain(tokenizer, example.thinking), mark[THOUGHT]] if example.thinking else []
    return [*thinking, *plain(tokenizer, example.answer), mark[END], mark[EOS]]


def plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text in which marks are letters like any other."""
    tokenizer.encode_special_tokens = True
    return list(tokenizer.encode(text).ids)


def answer_in(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The answer in what a model said: after its thinking, before the end mark."""
    thought, ends = id_of(tokenizer, THOUGHT), {id_of(tokenizer, token) for token in (END, EOS)}
    said = ids[ids.index(thought) + 1 :] if thought in ids else ids
    stop = next((n for n, token in enumerate(said) if token in ends), len(said))
    return str(tokenizer.decode(said[:stop]))
