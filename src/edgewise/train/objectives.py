"""What a step minimises: the next token, with what mixtures, relu gates and pupils need beside it.

An objective is a function (inputs, targets) -> loss; whoever trains something else (heads on a frozen trunk, streams)
writes another one and hands it to `loop.fit`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgewise.train.model import Note, Transformer, cross_entropy
from edgewise.train.recipe import Recipe

Objective = Callable[[Tensor, Tensor], Tensor]  # inputs, targets (windows, tokens) → a scalar, with a gradient


def balance_loss(notes: Sequence[Note]) -> Tensor:
    """experts * Σ (share of choices · mean probability), mean over layers: 1 when all experts are used alike.

    Paper: Fedus et al. 2021, https://arxiv.org/abs/2101.03961
    """
    costs = []
    for note in notes:
        experts = note.probs.shape[-1]
        share = torch.bincount(note.chosen.flatten(), minlength=experts).float() / note.chosen.numel()
        costs.append(experts * (share * note.probs.mean(0)).sum())
    return torch.stack(costs).mean()


def zeros_loss(notes: Sequence[Note], wanted: float, skew: float = 0.0) -> Tensor:
    """Mean activation of relu gates, weighted by how far their share of zeros is below `wanted`: nothing above it.

    skew: how much less the first neurons are held down than the last, so that a few are hot and most are cold.
    """
    costs = []
    for note in notes:
        missing = (wanted - (note.active.detach() == 0).float().mean()).clamp(min=0)
        weight = 1 + skew * torch.linspace(-1, 1, note.active.shape[-1], device=note.active.device)
        costs.append(missing * (note.active.float() * weight).mean())
    return torch.stack(costs).mean()


def pupil_loss(logits: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against the teacher's distribution, mean over targets. Paper: https://arxiv.org/abs/1503.02531"""
    kept = targets.flatten() >= 0
    mine = functional.log_softmax(logits.float().flatten(0, 1)[kept], -1)
    return -(teacher.float().flatten(0, 1)[kept].softmax(-1) * mine).sum(-1).mean()


def next_token(model: Transformer, recipe: Recipe, teacher: Transformer | None = None) -> Objective:
    """Cross entropy of the next token, plus what the recipe's plan adds."""
    plan, shape = recipe.train, recipe.model
    share = plan.teacher_share if teacher is not None else 0.0
    few = recipe.data.loss_on == "answers"  # then the head runs where a target is, nowhere else

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        states, notes = model.states(inputs)
        if few:
            kept = targets >= 0
            states, targets = states[kept][None], targets[kept][None]
        logits = model.head(states)
        total = cross_entropy(logits, targets)
        if teacher is not None and share:
            with torch.no_grad():
                taught = teacher(inputs)
            total = (1 - share) * total + share * pupil_loss(logits, taught, targets)
        if shape.experts and plan.balance:
            total = total + plan.balance * balance_loss(notes)
        if shape.act == "relu" and not shape.experts and plan.zeros_pull:
            total = total + plan.zeros_pull * zeros_loss(notes, plan.zeros, plan.zeros_skew)
        return total

    return loss
