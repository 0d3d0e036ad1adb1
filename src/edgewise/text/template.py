"""The one place where Jinja runs (rule D10): a sandbox in which a template can only turn plain data into text.

Two fences. What may be touched is a list: these tags, these filters, these methods of strings, lists and mappings;
everything else is refused, so no payload reaches a Python object. What may be spent is a budget (see budget.py): every
statement, call, operation and output is charged through hooks in the generated code. Output is exactly transformers'.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import filters as stock
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError, TemplateSyntaxError, UndefinedError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from edgewise.base import BadInput
from edgewise.text.budget import Budget, ForbiddenError, TemplateBudgetError, measure, width

MAX_SOURCE_CHARS = 1 << 16  # the largest published templates have 20,000

_REFUSED_TAGS: tuple[type[nodes.Node], ...] = (
    nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.Block, nodes.EvalContextModifier,
    nodes.ScopedEvalContextModifier, nodes.ExtensionAttribute, nodes.ImportedName, nodes.ContextReference,
)  # fmt: skip
_HEAVY = (nodes.Call, nodes.Filter, nodes.Test, nodes.BinExpr, nodes.Compare, nodes.Getattr, nodes.Getitem)
_SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}
_WIDE_FIELD = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4})|\{[^}]*(?:\{|\d{4})")
_PLAIN_DATE = re.compile(r"(?:[^%]|%[-_0^#]?[A-Za-z%])*")

# What may be read of an object, by type. Methods that change their object are left out, as in transformers.
_STR = """
    capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit isidentifier
    islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix
    replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill
"""
_LOOP = "index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle changed"
_READABLE: dict[type, frozenset[str]] = {
    str: frozenset(_STR.split()),
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
    LoopContext: frozenset(_LOOP.split()),
    Cycler: frozenset({"next", "reset", "current"}),
    Macro: frozenset({"name"}),
}
_PLAIN = frozenset({str, int, float, bool, type(None), list, tuple, dict, range})

_FILTERS = """
    abs batch capitalize center count d default dictsort e escape first float format groupby indent int items join last
    length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort string sum
    title trim truncate unique upper urlencode wordcount
"""
# Filters and tests that look at nothing inside their value: it is not charged, and an iterator is not used up.
_SHALLOW = """
    default d first last length count list safe reverse items defined undefined none boolean false true integer float
    number string mapping iterable sequence callable sameas odd even divisibleby filter test escaped
"""


class _RefusalError(TemplateRuntimeError):
    """The template called raise_exception."""


def _readable(obj: Any) -> frozenset[str]:
    return _READABLE.get(str if isinstance(obj, str) else type(obj), frozenset())


def _plain_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the name {name!r}")


class _SafeNamespace(Namespace):
    """transformers' rule: no attribute that starts with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _plain_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        Namespace.__setitem__(self, name, value)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}: marks the assistant's part for training; it prints its body."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _charge(node: nodes.Node) -> int:
    """Puts in front of every list of statements what one pass through it costs; returns the cost of the rest."""
    cost = 4 if isinstance(node, _HEAVY) else 1
    if isinstance(node, nodes.TemplateData):
        cost += len(node.data) // 8
    for field, value in node.iter_fields():
        if isinstance(value, list) and value and field in ("body", "else_"):
            price = nodes.Const(sum([_charge(item) for item in value]) + 1).set_lineno(node.lineno)
            value.insert(0, nodes.ExprStmt(price).set_lineno(node.lineno))
        elif isinstance(value, list):
            cost += sum([_charge(item) for item in value if isinstance(item, nodes.Node)])
        elif isinstance(value, nodes.Node):
            cost += _charge(value)
    if isinstance(node, nodes.For):
        node.iter = nodes.Filter(node.iter, "edgewise_iterate", [], [], None, None).set_lineno(node.lineno)
    return cost


class _Metered(CodeGenerator):
    """Generates code that asks the environment before it computes."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible  # nothing is computed while compiling
        return super()._output_child_to_const(node, frame, finalize)

    def visit_ExprStmt(self, node: nodes.ExprStmt, frame: Frame) -> None:  # noqa: N802
        assert isinstance(node.node, nodes.Const)  # only _charge makes these
        self.writeline(f"environment.spend({int(node.node.value)})")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join_text((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(environment.look(")
        self.visit(node.expr, frame)
        self.write(")")
        for op in node.ops:
            self.visit(op, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:  # noqa: N802
        self.write(f" {_SIGNS[node.op]} environment.look(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            self.write("environment.made(")
            super().visit_Getitem(node, frame)
            self.write(")")
        else:
            super().visit_Getitem(node, frame)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Not for two threads at once: the budget is its state."""

    code_generator_class = _Metered
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=self.text,
            optimized=False, cache_size=0,
        )  # fmt: skip
        self.budget = Budget()
        self.globals = {
            "range": self._range, "namespace": _SafeNamespace, "dict": _dict, "cycler": Cycler, "joiner": Joiner,
            "raise_exception": _raise, "strftime_now": _strftime_now,
        }  # fmt: skip
        self._callable = frozenset(map(id, self.globals.values()))
        filters: dict[str, Callable[..., Any]] = {name: stock.FILTERS[name] for name in _FILTERS.split()}
        shallow = frozenset(_SHALLOW.split())
        self.filters = {k: self._metered(k, f, k in shallow) for k, f in {**filters, "tojson": _tojson}.items()}
        self.filters["edgewise_iterate"] = self._listed
        tests: Any = self.tests  # typed by Jinja as functions that nothing can call
        self.tests = {k: self._metered(k, f, k in shallow) for k, f in tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(nodes.Node):
            if isinstance(node, _REFUSED_TAGS):
                raise SecurityError(f"the tag '{type(node).__name__.lower()}' in line {node.lineno}")
            if isinstance(node, nodes.NSRef):
                _plain_name(node.attr)
        _charge(tree)
        return tree

    # -- called from the generated code ---------------------------------------------------------------------------

    def spend(self, steps: int) -> None:
        self.budget.spend(steps)

    def look(self, value: Any) -> Any:
        return self.budget.look(value)

    def made(self, value: Any) -> Any:
        return self.budget.made(value)

    def text(self, value: Any) -> str:
        """str(value), charged."""
        if isinstance(value, str):
            self.budget.reserve(width(value))
            return value
        if value is not None and not isinstance(value, bool | int | float | Undefined):
            self.budget.reserve(4 * self.budget.text_size(value))
        return str(value)

    def join_text(self, values: tuple[Any, ...]) -> str:
        return str(self.budget.made("".join([self.text(value) for value in values])))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        if operator == "*":
            for items, count in ((left, right), (right, left)):
                if isinstance(items, str | list | tuple) and isinstance(count, int):
                    budget.repeated(items, count)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            budget.reserve((24 if type(left) is not type(right) else 4) * (len(left) + len(right)))
        elif operator == "%" and isinstance(left, str):
            self._format(left, "%", right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.power(left, right)
        return budget.made(super().call_binop(context, operator, left, right))

    def _format(self, pattern: str, mark: str, values: Any) -> None:
        if _WIDE_FIELD.search(pattern):
            raise ForbiddenError("a format with a very wide field")
        self.budget.formatted(pattern, mark, values)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if attribute in _readable(obj):
            return getattr(obj, attribute)
        kind = type(obj)
        if kind is dict and not hasattr(dict, attribute):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, Undefined | Namespace) and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        if attribute.startswith("_") or (kind not in _PLAIN and hasattr(obj, attribute)):
            raise SecurityError(f"reading '{attribute}' of {kind.__name__}")
        if hasattr(kind, attribute):  # a method that changes its object: undefined, as in transformers
            return self.unsafe_undefined(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Namespace):
            return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            if isinstance(argument, str) and hasattr(type(obj), argument):
                return self.getattr(obj, argument)
        return self.undefined(obj=obj, name=argument)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(4)
        for value in args:
            self.budget.look(value)
        if isinstance(obj, BuiltinMethodType | MethodType) and id(obj) not in self._callable:
            if obj.__name__ not in _readable(obj.__self__):
                raise SecurityError(f"the method '{obj.__name__}'")
            if isinstance(obj.__self__, str | list | tuple | dict):
                kwargs.pop("_block_vars", None)  # Jinja's own, for functions that want the context
                kwargs.pop("_loop_vars", None)
                return self.budget.made(self._call_method(obj.__self__, obj.__name__, args, kwargs))
        elif not isinstance(obj, Macro | Joiner | LoopContext | Undefined) and id(obj) not in self._callable:
            raise SecurityError(f"a call of {type(obj).__name__}")
        return self.budget.made(context.call(obj, *args, **kwargs))

    def _call_method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of a string or container, once a bound of its result is charged."""
        budget = self.budget
        if not isinstance(owner, str):
            budget.look(owner) if name in ("index", "count") else budget.spend(len(owner) // 8 + 1)
            return getattr(owner, name)(*args, **kwargs)
        budget.spend(len(owner) // 256 + 1)
        if name == "format":
            self._format(owner, "{", [args, kwargs])
            wrapped = self.wrap_str_format(owner.format)
            assert wrapped is not None
            return wrapped(*args, **kwargs)
        if name == "join" and args:
            args = (self._listed(args[0]), *args[1:])
            budget.joined(owner, args[0])
        elif name == "replace" and len(args) >= 2:
            budget.replaced(owner, *args[:2])
        elif name in ("center", "ljust", "rjust", "zfill") and args:
            budget.number(args[0])
        elif name in ("split", "rsplit", "splitlines"):
            budget.split(owner, args[0] if args else kwargs.get("sep"))
        return getattr(owner, name)(*args, **kwargs)

    def _listed(self, value: Any) -> Any:
        """A list where there was an iterator, each item charged; strings, containers and single values stay."""
        if isinstance(value, str | list | tuple | dict):
            self.budget.spend(len(value) // 8 + 1)
        elif isinstance(value, range):
            self.budget.reserve(32 * len(value))
        elif isinstance(value, Iterable) and not isinstance(value, Undefined):
            out = []
            for item in value:
                self.budget.spend(1)
                self.budget.reserve(8)
                out.append(item)
            return out
        return value

    def _metered(self, name: str, function: Callable[..., Any], shallow: bool) -> Callable[..., Any]:
        """A filter or test that charges its arguments before and its result after."""
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0
        bound = _BOUNDS.get(name)

        def metered(*args: Any, **kwargs: Any) -> Any:
            self.budget.spend(4)
            values = list(args)
            if not shallow:
                values[skip:] = [self.budget.look(self._listed(value)) for value in args[skip:]]
                for value in kwargs.values():
                    self.budget.look(value)
            if bound is not None:
                bound(self, *values[skip:], **kwargs)
            result = function(*values, **kwargs)
            return self.budget.made(result if shallow and name != "list" else self._listed(result))

        if skip:
            metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return metered

    def _range(self, *args: int) -> range:
        found = range(*args)
        if len(found) > 100_000:  # Jinja's own limit
            raise TemplateBudgetError("steps")
        return found


# -- functions and filters of transformers ----------------------------------------------------------------------------


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise(message: Any = "") -> None:
    raise _RefusalError(str(message)[:2000])


def _strftime_now(form: str) -> str:
    if not isinstance(form, str) or len(form) > 200 or not _PLAIN_DATE.fullmatch(form):
        raise ForbiddenError("a date format that is not plain")
    return datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """No HTML escapes, Unicode kept."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


# -- bounds of filters: charged before the filter runs; parameters as in the filter -----------------------------------


def _bound_numbers(box: _Sandbox, *values: Any, **named: Any) -> None:
    for value in (*values[1:], *named.values()):
        box.budget.number(value)


def _bound_text(box: _Sandbox, value: Any, *_: Any, **__: Any) -> None:
    box.budget.reserve(6 * (width(value) if isinstance(value, str) else box.budget.text_size(value)))


def _bound_join(box: _Sandbox, values: Any, d: Any = "", attribute: Any = None) -> None:
    if isinstance(values, str | list | tuple | dict | range):
        box.budget.joined(str(d) if isinstance(d, str) else "", values)
    if not isinstance(d, str):
        box.budget.text_size(d)


def _bound_replace(box: _Sandbox, text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    if not all(isinstance(value, str | int | float | Undefined | None) for value in (text, old, new)):
        raise ForbiddenError("replacing in something that is not text")
    box.budget.replaced(str(text), str(old), str(new))


def _bound_indent(box: _Sandbox, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    box.budget.indented(str(text) if isinstance(text, str | int | float) else "", width)


def _bound_json(box: _Sandbox, value: Any, ensure_ascii: Any = False, indent: Any = None, *_: Any, **__: Any) -> None:
    if not isinstance(value, Undefined):
        box.budget.json(value, indent)


def _bound_format(box: _Sandbox, text: Any, *values: Any, **named: Any) -> None:
    box._format(str(text) if isinstance(text, str) else "", "%", [values, named])


def _bound_sum(box: _Sandbox, values: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, int | float):  # adding up lists takes quadratic time
        raise ForbiddenError("a sum of things that are not numbers")


def _bound_list(box: _Sandbox, value: Any) -> None:
    if isinstance(value, str):
        box.budget.reserve(64 * len(value))


_BOUNDS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("center", "batch", "slice", "round", "truncate", "int"), _bound_numbers),
    **dict.fromkeys(("string", "upper", "lower", "title", "capitalize", "trim"), _bound_text),
    **dict.fromkeys(("urlencode", "wordcount", "escape", "e"), _bound_text),
    "join": _bound_join, "replace": _bound_replace, "indent": _bound_indent, "tojson": _bound_json,
    "format": _bound_format, "sum": _bound_sum, "list": _bound_list,
}  # fmt: skip


class Template:
    """A compiled template. Raises BadInput when the source is broken, too long or uses what no chat template may."""

    def __init__(self, source: str, name: str = "The chat template") -> None:
        self._name = name
        self._lock = threading.Lock()
        self.source = source
        if len(source) > MAX_SOURCE_CHARS:
            raise BadInput(f"{name} has {len(source)} characters; at most {MAX_SOURCE_CHARS} are read.")
        try:
            self._sandbox = _Sandbox()
            self._template = self._sandbox.from_string(source)
        except Exception as error:
            raise self._explain(error) from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for these variables (plain JSON values). Raises BadInput with one sentence."""
        with self._lock:
            self._sandbox.budget = Budget(*measure(variables))
            try:
                context = self._template.new_context(dict(variables))
                return "".join(self._template.root_render_func(context))
            except Exception as error:
                raise self._explain(error) from None

    def _explain(self, error: Exception) -> BadInput:
        if isinstance(error, BadInput):
            return error
        text = " ".join(str(error).split())[:500].rstrip(".")
        if isinstance(error, _RefusalError):
            return BadInput(f"{self._name} refuses these messages: {text}.")
        if isinstance(error, SecurityError):
            return BadInput(f"{self._name} does something no chat template may do: {text}.")
        if isinstance(error, TemplateSyntaxError):
            return BadInput(f"{self._name} is broken in line {error.lineno}: {text}.")
        if isinstance(error, UndefinedError):
            return BadInput(f"{self._name} needs something these messages lack: {text}.")
        if isinstance(error, RecursionError | MemoryError):
            what = "nests too deep" if isinstance(error, RecursionError) else "needs too much memory"
            return BadInput(f"{self._name} {what}, so it was stopped.")
        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        return BadInput(f"{self._name} fails on these messages: {kind}{text}.")
