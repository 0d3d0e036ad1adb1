"""A draft model grows a token tree, also while the target's weights are on their way from the disk.

Grown is what is likeliest to be in the text, several nodes in one pass of the draft model. How likely is learned while
drafts are verified (`decode.odds`): the model's confidences by themselves say little about a target that decodes
greedily. The target verifies when the next node is less likely than it would have to be for what it costs, in tokens
that the same time gives otherwise; that threshold follows what passes, rows and drafting take, as measured. What is
drafted while the target's layers are awaited goes on below the tree that is being verified, so that the next one has
begun whichever way the text goes. Where passes are not dear, as measured, it drafts nothing for a while.

Paper:  Xu et al., LLMCad, 2023, arXiv:2309.04255 (its threshold halves and grows with success and its branches grow by
        shares of confidence; both follow from learned chances and costs here. Branches are forks, not masks)
Exact.
Needs:  REWIND, TREE; a model with the target's vocabulary
Cost:   a row of the draft model a node, less what is hidden behind reading; its weights, a page of KV a branch
Status: kept
"""

import heapq
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, OutOfRoom, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.curve import VerifyCurve
from edgewise.decode.drafting import DraftModel, load_draft
from edgewise.decode.odds import Odds, RowCost
from edgewise.kernels.api import Floats

NOTHING = Draft()
LEAST, MOST = 1e-3, 0.5  # of the threshold
CHUNK = 256  # rows of one pass while it catches up with a text
FEW = 0.01  # of the likeliest token's chance: what is less likely is not looked at
TOGETHER = 8  # nodes of a tree in one pass of the draft model
WORTH = 0.1  # chance of the nodes of a pass ahead: layers may have come long before it ends
AHEAD = 4  # times the nodes of a tree are computed at most, with what is drafted ahead
GAIN, PAUSE, LONGEST, PLAIN = 1.05, 16, 1024, 64
FADE = 0.9


class Node:
    """A drafted token. place: its index in the text. branch: once computed, a sequence that has the text and its path
    cached, itself included; passed: a child goes on in it. chance: log of that of its whole path. key: of its odds."""

    __slots__ = ("branch", "chance", "key", "kids", "parent", "passed", "place", "token")

    def __init__(self, token: int, parent: "Node | None", place: int, chance: float = 0.0, key: int = 0) -> None:
        self.token, self.parent, self.place, self.chance, self.key = token, parent, place, chance, key
        self.branch, self.passed = SeqId(-1), False
        self.kids: dict[int, Node] | None = None  # None: it was not computed

    def below(self) -> Iterator["Node"]:
        left = [self]
        while left:
            kids = left.pop().kids
            if kids:
                yield from kids.values()
                left += kids.values()


class Tree:
    """What is drafted after one text. root: its last token; news: tokens up to it that its branch does not have."""

    def __init__(self, branch: SeqId, text: Sequence[int]) -> None:
        self.text = text
        self.read = 0  # tokens of the text that were seen
        self.news: list[int] = []
        self.full = False  # there was no room for its next token
        self.root = Node(-1, None, -1)
        self.root.branch = branch
        self._order = itertools.count()
        self.sprout()

    def sprout(self) -> None:
        """Counts anew what is below the root."""
        self.open: list[tuple[float, int, Node]] = []  # a heap: likeliest first
        self.computed: list[float] = []  # logs of chances, ascending but for their sign
        for node in self.root.below():
            self.found(node)

    def found(self, node: Node) -> None:
        if node.kids is None:
            heapq.heappush(self.open, (-node.chance, next(self._order), node))
        else:
            insort(self.computed, -node.chance)

    def chance(self, node: Node) -> float:
        """That it is in the text."""
        return math.exp(node.chance - self.root.chance)

    def fits(self, limit: int) -> bool:
        """Whether a child of the likeliest open node may be among so many: all that is likelier was computed."""
        return bool(self.open) and bisect_left(self.computed, self.open[0][0]) < limit - 1

    @property
    def best(self) -> float:
        """Of the nodes that were not computed."""
        return self.chance(self.open[0][2]) if self.open else 0.0


class LlmCadSpeculator:
    """model: folder or GGUF file. nodes: of a tree at most. width: children of a node at most. alpha: the least chance
    of a node, to begin with; adapt: whether it moves. ahead: draft while weights are awaited. gate: leave it where it
    does not pay. dtype: of the draft model's KV."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.TREE})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, model: str = "", nodes: int = 64, width: int = 6, alpha: float = 0.02, adapt: bool = True,
        ahead: bool = True, gate: bool = True, dtype: str = "f16",
    ) -> None:
        if not model:
            raise BadInput("speculator 'llmcad' needs a model: llmcad:model=PATH, one with the target's vocabulary.")
        if not (isinstance(nodes, int) and nodes >= 1 and isinstance(width, int) and width >= 1 and 0 < alpha < 1):
            raise BadInput(f"speculator 'llmcad': nodes={nodes!r}, width={width!r} or alpha={alpha!r} makes no sense.")
        self.model, self.nodes, self.width, self.alpha = str(model), nodes, width, alpha
        self.adapt, self.ahead, self.gate, self.dtype = adapt, ahead, gate, dtype
        self.odds, self.row = Odds(), RowCost()
        self._trees: dict[SeqId, Tree] = {}  # least recently used first
        self._next = itertools.count()
        self._curve = VerifyCurve()
        self._asking: list[Tree] = []  # whose drafts are being verified
        self._gain, self._wait, self._pause = 2.0, 0, PAUSE
        self._made, self._took = 0.0, 0.0  # tokens and seconds of steps with drafts, fading
        self._level_s = 0.0  # of a pass of the draft model
        self._drafter: Any = None
        self._now: set[SeqId] = set()  # who is in this step
        self._steps = 0  # with drafts, since the last one without
        self._passes = 0  # of the last `propose`
        self.passes_ahead = 0

    def prepare(self, target: Target) -> int:
        spare = AHEAD * self.nodes * target.sequences
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
            self._kv.remember(tree.root.branch, tree.text[: tree.read])  # the next turn of a chat begins with it
            self._prune(tree.root, None)
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
        row, level = self.thresholds()
        while True:
            work: list[tuple[Tree, Node]] = []
            for i, tree in trees.items():
                work += self._pick(tree, limits[i], row)
            if not work:
                break
            if not self._pays(work, level):
                break
            self._passes += 1
            self._grow(work)
        drafts = []
        for i in range(len(seqs)):
            draft = self._draft(trees[i], limits[i], row) if i in trees else NOTHING
            if draft.tokens:
                self._asking.append(trees[i])
            drafts.append(draft)
        return drafts

    def thresholds(self) -> tuple[float, float]:
        """The least chance of a node that is worth a row of the target's pass, and the least sum of those of nodes that
        are worth a pass of the draft model: what their cost is worth in tokens, at the present rate."""
        if not (self.adapt and self._took):
            return self.alpha, self.alpha
        rate = self._made / self._took
        return min(MOST, max(LEAST, rate * self.row.seconds)), min(MOST, rate * self._level_s)

    def meanwhile(self) -> bool:
        """One pass of the draft model, for the trees that are being verified; False: nothing likely is left to draft.
        """
        row, _ = self.thresholds()
        work: list[tuple[Tree, Node]] = []
        for tree in self._asking:
            work += self._pick(tree, AHEAD * self.nodes, row / AHEAD)
        if not work or not self._pays(work, WORTH if self.adapt else 0.0):
            return False
        self.passes_ahead += 1
        return self._grow(work)

    # ── after a pass ────────────────────────────────────────────────────────────────────

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        asking, self._asking = self._asking, []
        if not spent.decode or spent.prefill:
            return
        self._curve.saw(spent.decode, spent.pass_s)
        self.row.saw(spent.decode, spent.pass_s)
        if not asking:
            return
        plain = self._curve.seconds(len(outcomes)) or spent.pass_s
        made, took = sum(len(outcome.tokens) for outcome in outcomes), spent.pass_s + spent.draft_s
        self._made, self._took = FADE * self._made + made, FADE * self._took + took
        self._gain += (1 - FADE) * (made / len(outcomes) * plain / took - self._gain)
        if self.gate and self._gain < GAIN:
            self._wait, self._pause = self._pause, min(2 * self._pause, LONGEST)
        if self._gain > 2 * GAIN:
            self._pause = PAUSE
        if self._passes:
            self._level_s += 0.1 * (spent.draft_s / self._passes - self._level_s)

    # ── the tree ────────────────────────────────────────────────────────────────────────

    def _catch_up(self, view: SeqView) -> bool:
        """Goes down the tree with what is new in the text. False: there is no room for all of that."""
        tree = self._trees.pop(view.seq, None)
        if tree is None:
            tree = Tree(SeqId(next(self._next)), view.tokens)
            tree.read = self._kv.open(tree.root.branch, view.tokens)
        self._trees[view.seq] = tree
        for token in view.tokens[tree.read :]:
            old, kid = tree.root, None
            if old.kids is not None:
                self.odds.saw([one.key for one in old.kids.values()], _index(old.kids, token))
                kid = old.kids.get(token)
            tree.root = kid or Node(token, None, tree.read)
            if kid is None or kid.kids is None:  # one branch goes back to here
                if old.kids is not None:
                    self._prune(old, old.branch)
                    self._kv.rewind(old.branch, tree.read)
                tree.root.branch = old.branch
                tree.news.append(token)
            else:
                kept = {kid.branch, *(node.branch for node in kid.below() if node.kids is not None)}
                self._prune(old, *kept)
            tree.root.parent = None
            tree.read += 1
        tree.full = False
        tree.sprout()
        while len(tree.news) > CHUNK:
            if not self._reserve(tree.root.branch, CHUNK):
                return False
            self._drafter.run([(tree.root.branch, tree.news[:CHUNK], self._kv.length(tree.root.branch))])
            del tree.news[:CHUNK]
        return True

    def _pick(self, tree: Tree, limit: int, least: float) -> list[tuple[Tree, Node]]:
        """The nodes to be computed next for a tree of so many nodes likelier than that; none: it is time to verify."""
        if tree.full:
            return []
        if tree.news:
            return [(tree, tree.root)]
        picked: list[tuple[Tree, Node]] = []
        while len(picked) < TOGETHER and tree.best > least and tree.fits(limit - len(picked)):
            node = heapq.heappop(tree.open)[2]
            if node.place + 1 < self._context:
                picked.append((tree, node))
        return picked

    def _pays(self, work: Sequence[tuple[Tree, Node]], least: float) -> bool:
        """Whether these together are so likely; if not, they are open again."""
        if sum(tree.chance(node) for tree, node in work) >= least:
            return True
        for tree, node in work:
            if node is not tree.root:
                tree.found(node)
        return False

    def _grow(self, work: Sequence[tuple[Tree, Node]]) -> bool:
        """Computes these nodes, or the news of a root, and gives each its children."""
        for tree, node in work:  # all forks before the first room is made: a fork takes that away
            if not tree.news:
                self._lead(node)
        rows = []
        for tree, node in work:
            tokens = tree.news or [node.token]
            if self._reserve(node.branch, len(tokens)):
                rows.append((tree, node, tokens))
            else:
                tree.full = True
                self._let_go(node)
        if not rows:
            return False
        logits = self._drafter.run([(node.branch, tokens, self._kv.length(node.branch)) for _, node, tokens in rows])
        for (tree, node, _), choices in zip(rows, self._choices(logits[:, : self._vocab]), strict=True):
            tree.news, node.kids = [], {}
            if node is not tree.root:
                tree.found(node)
            for rank, (token, confidence) in enumerate(choices):
                key = self.odds.key(rank, confidence)
                chance = node.chance + math.log(self.odds.chance(key, confidence))
                kid = node.kids[token] = Node(token, node, node.place + 1, chance, key)
                tree.found(kid)
        return True

    def _choices(self, logits: Floats) -> Iterator[list[tuple[int, float]]]:
        """Of each row the likeliest tokens, with their probabilities."""
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows, tokens = np.nonzero(odds > FEW)
        ends = np.searchsorted(rows, np.arange(len(odds) + 1))
        for row, total, begin, end in zip(odds, odds.sum(axis=1), ends[:-1], ends[1:], strict=True):
            few = tokens[begin:end]
            chosen = few[np.argsort(-row[few], kind="stable")[: self.width]]
            yield list(zip(chosen.tolist(), (row[chosen] / total).tolist(), strict=True))

    def _draft(self, tree: Tree, limit: int, least: float) -> Draft:
        """The likeliest nodes; a parent is never less likely than its child, and stands before it."""
        some = [node for node in tree.root.below() if tree.chance(node) >= least]
        nodes = sorted(some, key=lambda node: (-node.chance, node.place))[:limit]
        place: dict[int, int] = {id(tree.root): -1}
        place.update((id(node), at) for at, node in enumerate(nodes))
        return Draft(tuple(node.token for node in nodes), tuple(place[id(node.parent)] for node in nodes))

    # ── branches ────────────────────────────────────────────────────────────────────────

    def _lead(self, node: Node) -> None:
        """A branch that ends before this node: its parent's, or, where another child went on in that one, a fork."""
        parent = node.parent
        assert parent is not None
        if not parent.passed:
            node.branch, parent.passed = parent.branch, True
            return
        node.branch = SeqId(next(self._next))
        self._kv.fork(parent.branch, node.branch)
        if self._kv.length(node.branch) > node.place:
            self._kv.rewind(node.branch, node.place)

    def _let_go(self, node: Node) -> None:
        """There was no room for it."""
        if node.parent is not None and node.branch == node.parent.branch:
            node.parent.passed = False
        elif node.parent is not None:
            self._kv.close(node.branch)

    def _prune(self, root: Node, *kept: SeqId | None) -> None:
        """Gives back the branches of what is computed from this node on, but for some."""
        for branch in {root.branch, *(node.branch for node in root.below() if node.kids is not None)} - {*kept}:
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


def _index(kids: dict[int, Node], token: int) -> int:
    return next((at for at, one in enumerate(kids) if one == token), -1)
