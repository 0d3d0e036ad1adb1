"""A draft model grows a token tree, also while the target's weights are on their way from the disk.

Any token more likely than `split` opens a branch; of the branches the one grows next that is farthest behind its share
of the tree by confidence. When the likeliest open branch falls below a threshold the target verifies: after a draft
that came true the threshold is halved, after an error divided by the confidence of what came after it, and it is never
above what a token costs here, drafting and a row, against what a pass takes. What is drafted while the target's layers
are awaited follows the tree that is being verified, so that the next one has begun if it comes true. Where passes are
not dear, as measured, it drafts nothing for a while.

Paper:  Xu et al., LLMCad, 2023, arXiv:2309.04255 (the threshold's exponent as in EdgeLLM's words; branches are forks)
Exact.
Needs:  REWIND, TREE; a model with the target's vocabulary
Cost:   a pass of the draft model a token, less what is hidden behind reading; its weights, a page of KV a branch
Status: kept
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, OutOfRoom, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.curve import VerifyCurve
from edgewise.decode.drafting import DraftModel, load_draft
from edgewise.decode.ranking import ranked
from edgewise.kernels.api import Floats

NOTHING = Draft()
LEAST, MOST = 1e-4, 0.5  # of the threshold
CHUNK = 256  # rows of one pass while it catches up with a text
GAIN, PAUSE, LONGEST, PLAIN = 1.05, 16, 1024, 64
FADE = 0.9


class Node:
    """A drafted token. branch: the sequence that has everything before it cached. spent: tokens of its own branch."""

    __slots__ = ("branch", "chance", "depth", "kids", "parent", "spent", "token")

    def __init__(self, token: int, parent: "Node | None", chance: float, branch: SeqId, depth: int, spent: int) -> None:
        self.token, self.parent, self.chance = token, parent, chance
        self.branch, self.depth, self.spent = branch, depth, spent
        self.kids: dict[int, Node] | None = None  # None: it was not computed

    def below(self) -> Iterator["Node"]:
        for kid in (self.kids or {}).values():
            yield kid
            yield from kid.below()


class Tree:
    """What is drafted after one text. root: its last token, with news, the tokens before it that are not cached."""

    def __init__(self, branch: SeqId, alpha: float, text: Sequence[int]) -> None:
        self.text = text
        self.root = Node(-1, None, 1.0, branch, 0, 0)
        self.news: list[int] = []
        self.read = 0  # tokens of the text that were seen
        self.alpha, self.surest, self.deepest, self.asked = alpha, 1.0, 0, 0
        self.full = False  # there was no room for its next token

    def open(self) -> list[Node]:
        """Nodes that were not computed."""
        return [node for node in self.root.below() if node.kids is None]


class LlmCadSpeculator:
    """model: folder or GGUF file. nodes: of a tree at most. split: least probability of a token that opens a branch.
    alpha: the threshold to begin with. adapt: whether it moves. ahead: draft while weights are awaited. gate: leave it
    where it does not pay. dtype: of the draft model's KV."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.TREE})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, model: str = "", nodes: int = 32, split: float = 0.1, alpha: float = 0.01, adapt: bool = True,
        ahead: bool = True, gate: bool = True, dtype: str = "f16",
    ) -> None:
        if not model:
            raise BadInput("speculator 'llmcad' needs a model: llmcad:model=PATH, one with the target's vocabulary.")
        if not (isinstance(nodes, int) and nodes >= 1 and 0 < split <= 1 and 0 < alpha < 1):
            raise BadInput(f"speculator 'llmcad': nodes={nodes!r}, split={split!r} or alpha={alpha!r} makes no sense.")
        self.model, self.nodes, self.split, self.alpha = str(model), nodes, split, alpha
        self.adapt, self.ahead, self.gate, self.dtype = adapt, ahead, gate, dtype
        self._trees: dict[SeqId, Tree] = {}  # least recently used first
        self._next = itertools.count()
        self._curve = VerifyCurve()
        self._asking: list[Tree] = []  # whose drafts are being verified
        self._gain, self._wait, self._pause, self._level_s = 2.0, 0, PAUSE, 0.0
        self._drafter: Any = None
        self._now: set[SeqId] = set()  # who is in this step
        self._steps = 0  # with drafts, since the last one without
        self._passes = 0  # of the last `propose`
        self.passes_ahead = 0

    def prepare(self, target: Target) -> int:
        spare = 3 * self.nodes * target.sequences
        drafter, held = load_draft(self.model, target, seen=target.context, spare_pages=spare, dtype=self.dtype)
        self.use(drafter, target)
        return held

    def use(self, drafter: DraftModel, target: Target) -> None:
        """The model that drafts, on the target's device."""
        self._drafter, self._kv = drafter, drafter.kv
        self._vocab = target.spec.vocab
        self._context = min(target.context, drafter.spec.context)
        if self.ahead:
            target.waits.append(self.meanwhile)

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        pass

    def end(self, seq: SeqId) -> None:
        tree = self._trees.pop(seq, None)
        if tree is not None:
            branch = next((leaf.branch for leaf in tree.open()), tree.root.branch)
            self._kv.remember(branch, tree.text[: tree.read])  # the next turn of a chat begins with it
            self._close(tree.root)
            if tree in self._asking:
                self._asking.remove(tree)

    # ── before a pass ───────────────────────────────────────────────────────────────────

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        self._asking, self._passes = [], 0
        self._now = {view.seq for view in seqs}
        if self.gate and (self._wait or not self._curve.points or self._steps >= PLAIN):
            self._wait, self._steps = max(0, self._wait - 1), 0
            if not self._wait:
                self._gain = 2.0
            return [NOTHING] * len(seqs)
        self._steps += 1
        limits: dict[int, int] = {}
        for i, view in enumerate(seqs):
            fair = min(self.nodes, view.most, budget // len(seqs), self._context - len(view.tokens) - 1)
            if fair > 0 and self._catch_up(view):
                limits[i] = fair
        trees = {i: self._trees[seqs[i].seq] for i in limits}
        while True:
            work = []
            for i, tree in trees.items():
                node = tree.root if tree.news else self._next_node(tree, limits[i])
                if node is not None and not tree.full:
                    work.append((tree, node))
            if not work:
                break
            self._passes += 1
            self._grow(work)
        drafts = []
        for i in range(len(seqs)):
            draft = self._draft(trees[i], limits[i]) if i in trees else NOTHING
            if draft.tokens:
                self._asking.append(trees[i])
            drafts.append(draft)
        return drafts

    def meanwhile(self) -> bool:
        """One pass of the draft model, for the trees that are being verified; False: nothing is left to draft."""
        work = []
        for tree in self._asking:
            open_ = tree.open()
            if open_ and tree.asked < 2 * self.nodes and not tree.full:
                best = max(open_, key=lambda node: node.chance)
                if self._kv.length(best.branch) + 1 < self._context:
                    tree.asked += 1
                    work.append((tree, best))
        if not work:
            return False
        self.passes_ahead += 1
        return self._grow(work)

    # ── after a pass ────────────────────────────────────────────────────────────────────

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        asking, self._asking = self._asking, []
        if not spent.decode or spent.prefill:
            return
        self._curve.saw(spent.decode, spent.pass_s)
        if not asking:
            return
        plain = self._curve.seconds(len(outcomes)) or spent.pass_s
        made = sum(len(outcome.tokens) for outcome in outcomes) / len(outcomes)
        self._gain += (1 - FADE) * (made * plain / (spent.pass_s + spent.draft_s) - self._gain)
        if self.gate and self._gain < GAIN:
            self._wait, self._pause = self._pause, min(2 * self._pause, LONGEST)
        if self._gain > 2 * GAIN:
            self._pause = PAUSE
        if self._passes:
            self._level_s += 0.1 * (spent.draft_s / self._passes - self._level_s)
        if not self.adapt:
            return
        more = max(0.0, self._curve.seconds(spent.decode) - plain)  # medians: a disk is not always as fast
        row_s = more / max(1, spent.decode - len(outcomes))
        dear = min(MOST, max(LEAST, made * (self._level_s + row_s) / spent.pass_s))  # a token below that does not pay
        kept = {outcome.seq: len(outcome.nodes) for outcome in outcomes}
        for seq, tree in self._trees.items():
            if tree in asking and seq in kept and tree.deepest:
                wrong = max(0, tree.deepest - kept[seq]) / tree.deepest
                tree.alpha = tree.alpha / 2 if not wrong else tree.alpha / max(tree.surest, LEAST) ** wrong
                tree.alpha = min(dear, max(LEAST, tree.alpha))

    # ── the tree ────────────────────────────────────────────────────────────────────────

    def _catch_up(self, view: SeqView) -> bool:
        """Goes down the tree with what is new in the text. False: too much is missing, of which a chunk is computed."""
        tree = self._trees.pop(view.seq, None)
        if tree is None:
            tree = Tree(SeqId(next(self._next)), self.alpha, view.tokens)
            tree.read = self._kv.open(tree.root.branch, view.tokens)
        self._trees[view.seq] = tree
        for token in view.tokens[tree.read :]:
            kids = None if tree.news else tree.root.kids
            kid = kids.pop(token, None) if kids else None
            if kids is not None and kid is not None:
                for other in kids.values():
                    self._close(other)
                tree.root = kid
                if kid.kids is None:
                    tree.news = [token]
            else:  # nobody thought of it: one branch goes back to here
                if not tree.news and tree.root.kids:
                    branch, *rest = {leaf.branch for leaf in tree.open()}
                    for other_branch in rest:
                        self._kv.close(other_branch)
                    self._kv.rewind(branch, tree.read)
                    tree.root = Node(-1, None, 1.0, branch, 0, 0)
                tree.root.kids = None
                tree.news.append(token)
            tree.read += 1
        whole, first = tree.root.chance, tree.root.depth
        tree.root.parent, tree.root.spent = None, 0
        tree.root.chance, tree.root.depth = 1.0, 0
        for node in tree.root.below():
            node.chance /= whole
            node.depth -= first
        tree.asked, tree.full = 0, False
        if len(tree.news) <= CHUNK:
            return True
        if self._reserve(tree.root.branch, CHUNK):
            self._drafter.run([(tree.root.branch, tree.news[:CHUNK], self._kv.length(tree.root.branch))])
            del tree.news[:CHUNK]
        return False

    def _next_node(self, tree: Tree, limit: int) -> Node | None:
        """The one to be computed next; None: it is time to verify."""
        open_ = tree.open()
        tree.surest = max((node.chance for node in open_), default=0.0)
        if tree.surest < tree.alpha or sum(1 for _ in tree.root.below()) >= limit:
            return None
        total = sum(node.chance for node in open_)
        return max(open_, key=lambda node: limit * node.chance / total - node.spent)

    def _grow(self, work: Sequence[tuple[Tree, Node]]) -> bool:
        """Computes these nodes, or the news of a root, and gives each its children."""
        rows = []
        for tree, node in work:
            tokens = tree.news or [node.token]
            if self._reserve(node.branch, len(tokens)):
                rows.append((tree, node, tokens))
            else:
                tree.full = True
        if not rows:
            return False
        logits = self._drafter.run([(node.branch, tokens, self._kv.length(node.branch)) for _, node, tokens in rows])
        for (tree, node, _), row in zip(rows, logits[:, : self._vocab], strict=True):
            tree.news = []
            node.kids = {}
            for at, (token, chance) in enumerate(self._choices(row)):
                branch = node.branch
                if at:
                    branch = SeqId(next(self._next))
                    self._kv.fork(node.branch, branch)
                spent = 0 if at else node.spent + 1
                node.kids[token] = Node(token, node, node.chance * chance, branch, node.depth + 1, spent)
        return True

    def _choices(self, row: Floats) -> list[tuple[int, float]]:
        """The likeliest token, and any others that open a branch, with their probabilities."""
        odds = np.exp(row - row.max())
        odds /= odds.sum()
        few = ranked(row, max(1, min(len(row), int(1 / self.split)))).tolist()
        return [(token, float(odds[token])) for at, token in enumerate(few) if not at or odds[token] > self.split]

    def _draft(self, tree: Tree, limit: int) -> Draft:
        """The likeliest nodes; a parent is never less likely than its child, and stands before it."""
        nodes = sorted(tree.root.below(), key=lambda node: (-node.chance, node.depth))[:limit]
        place: dict[int, int] = {id(tree.root): -1}
        place.update((id(node), at) for at, node in enumerate(nodes))
        tree.deepest = max((node.depth for node in nodes), default=0)
        return Draft(tuple(node.token for node in nodes), tuple(place[id(node.parent)] for node in nodes))

    def _close(self, node: Node) -> None:
        """Gives back the branches of the nodes below, or its own."""
        for branch in {leaf.branch for leaf in (node, *node.below()) if not leaf.kids}:
            self._kv.close(branch)

    def _reserve(self, branch: SeqId, count: int) -> bool:
        """Room for so many more tokens; sequences that did not draft for longest lose theirs."""
        while True:
            try:
                self._kv.reserve(branch, self._kv.length(branch) + count)
                return True
            except OutOfRoom:
                victim = next((seq for seq in self._trees if seq not in self._now), None)
                if victim is None:
                    return False
                self.end(victim)
