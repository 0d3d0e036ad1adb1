"""What a member is good for, in figures: completion, tasks, routing, zeros, acceptance of drafts. All greedy.

Each function takes torch models on any device and returns plain numbers; `edgewise train eval NAME` prints them.
"""

import ast
import codeop
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from edgewise.train import chat, tasks
from edgewise.train.model import Transformer
from edgewise.train.samples import complete
from edgewise.train.tokenizer import BOS, EOS, id_of

Figures = dict[str, Any]


def simple_functions(texts: Sequence[str], count: int, *, documented: bool = False) -> list[str]:
    """Heads of top-level functions with a short body: everything up to where the body's code begins, docstring too.

    documented: only functions with a docstring, which says what the body is to do.
    """
    found: list[tuple[int, str]] = []
    for text in texts:
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        lines = text.splitlines(keepends=True)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or node.decorator_list or not node.args.args:
                continue
            told = ast.get_docstring(node) is not None
            code = node.body[1:] if told else node.body
            length = (node.end_lineno or 0) - node.lineno
            if not code or not 2 <= length <= 12 or code[0].lineno == node.lineno or (documented and not told):
                continue
            found.append((length, "".join(lines[node.lineno - 1 : code[0].lineno - 1])))
    return [head for _, head in sorted(dict.fromkeys(found))[:count]]


def body_of(head: str, continuation: str, finished: bool) -> tuple[str, bool]:
    """What of a continuation belongs to the function, and whether it ended by itself.

    It ends by itself where the model does (`finished`) or at the first line that is not indented, and is then taken as
    it stands. Else the last line is dropped, for it may have been cut, and, if what is left is fine but unfinished (an
    open bracket or string), what follows the last complete statement. A mistake anywhere stays in.
    """
    lines = continuation.splitlines(keepends=True)
    outside = [n for n, line in enumerate(lines) if line.strip() and not line[0].isspace()]
    if outside or finished:
        return "".join(lines[: outside[0]] if outside else lines), True
    kept = lines[:-1]
    try:
        unfinished = codeop.compile_command(head + "".join(kept), symbol="exec") is None
    except (SyntaxError, ValueError, OverflowError):
        unfinished = False
    while unfinished and kept and not parses(head + "".join(kept)):
        kept.pop()
    return "".join(kept), False


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def completion(model: Transformer, tokenizer: Tokenizer, heads: Sequence[str], tokens: int = 96) -> Figures:
    """How many of these heads of functions get a body that parses, and how many bodies ended within `tokens`."""
    bos, eos = id_of(tokenizer, BOS), id_of(tokenizer, EOS)
    shown, good, ended = [], 0, 0
    for head in heads:
        ids = [bos, *chat.plain(tokenizer, head)]
        new = complete(model, ids, tokens, stop=(eos,))
        body, whole = body_of(head, tokenizer.decode(new), len(new) < tokens)
        right = bool(body.strip()) and parses(head + body)
        good, ended = good + right, ended + whole
        shown.append({"text": head + body, "parses": right})
    return {"functions": len(heads), "parse": good, "ended_by_themselves": ended, "shown": shown}


def task_accuracy(model: Transformer, tokenizer: Tokenizer, count: int = 20) -> dict[str, list[float]]:
    """Share of right answers to held-out questions, by task; one figure a level."""
    stop = [id_of(tokenizer, EOS)]
    found: dict[str, list[float]] = {}
    for task in tasks.TASKS:
        for level in range(1, tasks.LEVELS + 1):
            examples = tasks.held_out(task, level, count)
            right = 0
            for one in examples:
                prompt, reply = chat.prompt_ids(tokenizer, one), chat.reply_ids(tokenizer, one)
                said = complete(model, prompt, len(reply) + 16, stop=stop)
                right += one.right(chat.answer_in(tokenizer, said))
            found.setdefault(task, []).append(right / max(1, len(examples)))
    return found


def lru_hits(chosen: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of expert uses found in a least-recently-used cache of `capacity` experts, token after token."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = uses = 0
    for wanted in chosen:
        for expert in wanted:
            uses += 1
            hits += expert in held
            held[expert] = None
            held.move_to_end(expert)
            if len(held) > capacity:
                held.popitem(last=False)
    return hits / max(1, uses)


@torch.no_grad()
def routing(model: Transformer, windows: Tensor) -> Figures:
    """Entropy of the router (bits a token) and of its use, next-layer guesses, LRU hits at a quarter of the experts.

    The guess: the next layer's router applied to what this layer's router read; recall is the share of the next layer's
    experts among the guess's best k. `same_as_before`: the share that the token before used too, the plain guess.
    """
    k, experts = model.shape.experts_per_token, model.shape.experts
    notes = [model.states(row[None])[1] for row in windows]
    layers = range(model.shape.layers)
    entropy, use, recall, before, hits = [], [], [], [], []
    for layer in layers:
        chosen = [note[layer].chosen for note in notes]
        probs = torch.cat([note[layer].probs for note in notes])
        entropy.append(float(-(probs * probs.clamp_min(1e-12).log2()).sum(-1).mean()))
        share = torch.bincount(torch.cat(chosen).flatten(), minlength=experts).float()
        share = share / share.sum()
        use.append(float(-(share * share.clamp_min(1e-12).log2()).sum()))
        before.append(_shared([c[1:] for c in chosen], [c[:-1] for c in chosen]))
        hits.append(lru_hits(torch.cat(chosen).tolist(), experts // 4))
        if layer:
            gate = model.model.layers[layer].mlp.gate.weight
            guess = [functional.linear(note[layer - 1].read, gate).topk(k, -1).indices for note in notes]
            recall.append(_shared(chosen, guess))
    return {
        "entropy_bits": entropy, "use_entropy_bits": use, "most_bits": math.log2(experts),
        "next_layer_recall": recall, "same_as_before": before, "chance": k / experts,
        "lru_hits": hits, "lru_capacity": experts // 4,
        "lru_over_chance": [hit * experts / (experts // 4) for hit in hits],
    }  # fmt: skip


def _shared(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Mean share of each token's experts in `a` that are among its experts in `b`."""
    found = [(x[:, :, None] == y[:, None, :]).any(-1).float() for x, y in zip(a, b, strict=True)]
    return float(torch.cat(found).mean())


@torch.no_grad()
def sparsity(model: Transformer, windows: Tensor) -> Figures:
    """By layer: share of exact zeros behind the relu gate, and what share of the rest the top 30 % of neurons carry."""
    counts = [torch.zeros(model.shape.ffn_dim) for _ in range(model.shape.layers)]
    tokens = 0
    for row in windows:
        for layer, note in enumerate(model.states(row[None])[1]):
            counts[layer] += (note.active > 0).float().sum(0).cpu()
        tokens += len(row)
    top = int(0.3 * model.shape.ffn_dim)
    return {
        "zeros": [1 - float(c.sum()) / (tokens * len(c)) for c in counts],
        "top_30_percent_carry": [float(c.sort(descending=True).values[:top].sum() / c.sum()) for c in counts],
    }


def acceptance(target: Transformer, draft: Transformer, prompts: Sequence[Sequence[int]], *, tokens: int = 64,
               gamma: int = 4) -> Figures:  # fmt: skip
    """Greedy speculation without the speed: how many of the draft's `gamma` guesses the target would have said too.

    acceptance: accepted of proposed. rate: of the guesses whose predecessors were right, the share that is right too,
    which Leviathan et al. call the acceptance rate; a first mistake makes the guesses after it worthless.
    """
    proposed = accepted = passes = made = tried = 0
    for prompt in prompts:
        said = complete(target, prompt, tokens)
        made += len(said)
        for at in _passes(draft, list(prompt), said, gamma):
            passes += 1
            proposed += min(gamma, at[1])
            accepted += at[0]
            tried += min(at[0] + 1, at[1])
    return {
        "prompts": len(prompts), "gamma": gamma, "acceptance": accepted / max(1, proposed),
        "rate": accepted / max(1, tried),
        "tokens_per_pass": made / max(1, passes),
    }  # fmt: skip


def _passes(draft: Transformer, prompt: list[int], said: list[int], gamma: int) -> Iterator[tuple[int, int]]:
    """(guesses accepted, guesses that could be checked) of each pass over what the target said."""
    at = 0
    while at < len(said):
        guess = complete(draft, prompt + said[:at], gamma)
        checked = said[at : at + gamma]
        right = next((n for n, (a, b) in enumerate(zip(guess, checked, strict=False)) if a != b), len(checked))
        yield right, len(checked)
        at += right + 1


@torch.no_grad()
def agreement(target: Transformer, draft: Transformer, windows: Tensor) -> float:
    """Share of positions of a text at which both have the same most likely next token."""
    same = [(target(row[None]).argmax(-1) == draft(row[None]).argmax(-1)).float().mean() for row in windows]
    return float(torch.stack(same).mean())
