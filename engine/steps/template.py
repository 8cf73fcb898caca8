"""Templates over a row: Jinja2 in a sandbox, compiled once, with a path that leaves Jinja out where it can.

Rules of this file:
1. The text of a template comes from the job, never from a row. What a row holds is inserted and not looked
   at again: ``{{ ... }}`` inside a value stays as it is.
2. Both paths insert a value through ``text_of``, so that which one is taken cannot be seen in the output.
3. Messages name columns, template lines and kinds of errors; they never quote what a row holds.

What is bounded: ``range`` (the sandbox's 100,000), the repetition of a string or list with ``*``, powers,
and the characters a template gives out. Loops over the row's own lists may be nested; only the output bounds them.
"""

from collections.abc import Callable, Mapping
from types import GeneratorType, TracebackType
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, missing, object_type_repr

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.formats.rows import encode_values
from engine.steps.naming import ROW, columns_named, columns_needed, plain_slots

OUTPUT_CHARS_MAX = 16 * 1024 * 1024
REPEAT_MAX = 16 * 1024 * 1024  # elements or characters that ``*`` may make
POWER_MAX = 10_000  # exponent
POWER_BITS_MAX = 100_000

Escape = Callable[[str], str]

_OTHER_TEMPLATES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def text_of(value: Any) -> str:
    """How a row's value stands in a text.

    Strings stand as they are, null as nothing; true, false, lists and objects as compact JSON; numbers as
    Python prints them, which JSON reads back as the same number.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (dict, list, tuple)):
        return encode_values(value).decode()
    if isinstance(value, GeneratorType):  # what the filters map and select give
        return text_of(list(value))
    return str(value)


class _Missing(StrictUndefined):
    """A column the row does not have. Says so without quoting names that came out of another value."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"the row has no column {self._undefined_name!r}"
        return f"a value ({object_type_repr(self._undefined_obj)}) has no such element or attribute"


class _Absent(Undefined):
    """What a step would have given that was spared: empty, false, none, and not defined."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return f"{self._undefined_name!r} is what a step that was spared would have given"

    def __eq__(self, other: object) -> bool:
        return other is None or type(other) is _Absent

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Undefined.__hash__


def absent(column: str) -> Any:
    """The value of a column that a spared step would have given, for templates that can do without it."""
    return _Absent(name=column)


def _is_none(value: Any) -> bool:
    return value is None or isinstance(value, _Absent)


class _Row(dict[str, Any]):
    """The row under the name ``row``: ``row.name`` is always the column, never a method of the mapping."""

    __slots__ = ()


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox: no attribute that begins with an underscore, no mutation, no loader, bounded repetition."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, escape: Escape | None) -> None:
        finalize: Callable[[Any], str] = text_of
        if escape is not None:
            inner = escape

            def finalize(value: Any) -> str:
                return inner(text_of(value))

        super().__init__(
            undefined=_Missing,
            autoescape=False,  # prompts and JSON are no HTML; callers that need escaping pass it
            keep_trailing_newline=True,
            finalize=finalize,
            cache_size=0,
        )
        self.tests = {**self.tests, "none": _is_none}
        self.globals = {"range": safe_range, "namespace": Namespace}
        self.columns: frozenset[str] = frozenset()  # those the template names, which messages may repeat

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(right, (int, float)) and abs(right) > POWER_MAX:
            raise SecurityError(f"a power above {POWER_MAX:,}")
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            # Powers of powers stay below the exponent's bound and still grow without end.
            if left.bit_length() * max(right, 0) > POWER_BITS_MAX:
                raise SecurityError("a power with too many digits")
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if (
                    isinstance(sequence, (str, list, tuple))
                    and isinstance(count, int)
                    and len(sequence) * count > REPEAT_MAX
                ):
                    raise SecurityError(f"a repetition of more than {REPEAT_MAX:,} elements")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, _Row):
            return self.getitem(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, _Row):
            if argument in obj:
                return obj[argument]
            if argument in self.columns:
                return self.undefined(name=argument)
            return self.undefined(hint="the row has no column of the name that an expression gives")
        return super().getitem(obj, argument)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        hint = f"a template may not use this attribute of a value ({object_type_repr(obj)})"
        return self.undefined(hint, exc=SecurityError)


class Template:
    """A template, parsed and compiled once. ``escape`` is applied to every inserted value, not to literal text.

    ``what`` names the template in messages ("the prompt"). Raises UsageError, with the line, for one that
    does not parse or that refers to other templates.
    """

    __slots__ = (
        "_columns",
        "_compiled",
        "_escape",
        "_filename",
        "_pieces",
        "_what",
        "columns",
        "constant",
        "needed",
        "only_column",
    )

    def __init__(self, text: str, *, what: str = "the prompt", escape: Escape | None = None) -> None:
        environment = _Environment(escape)
        tree, columns = _parse(environment, text, what)
        self._what = what
        self._escape = escape
        self.columns = environment.columns = frozenset(columns)
        self.needed = columns_needed(tree, self.columns)
        plain = plain_slots(tree, self.columns)
        self._pieces: list[str] | None = None
        self._columns: list[tuple[int, str]] = []
        if plain is not None:
            self._pieces, self._columns = plain
        self.constant = plain is not None and not self._columns
        alone = plain is not None and len(plain[0]) == len(plain[1]) == 1
        self.only_column = self._columns[0][1] if alone else None  # {{ column }} and nothing beside it
        self._compiled = environment.from_string(tree)
        self._filename = self._compiled.root_render_func.__code__.co_filename

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for one row.

        Raises RowError (template_error) when a column is missing, an expression fails on this row, or the
        text is longer than OUTPUT_CHARS_MAX.
        """
        if self._pieces is None:
            return self._render_with_jinja(values)
        pieces = self._pieces.copy()
        escape = self._escape
        for place, column in self._columns:
            try:
                value = values[column]
            except KeyError:
                raise self._failed(f"the row has no column {column!r}") from None
            if type(value) is not str:
                value = text_of(value)
            pieces[place] = value if escape is None else escape(value)
        text = "".join(pieces) if len(pieces) < 8 or sum(map(len, pieces)) <= OUTPUT_CHARS_MAX else None
        if text is None or len(text) > OUTPUT_CHARS_MAX:
            raise self._too_long()
        return text

    def _render_with_jinja(self, values: Mapping[str, Any]) -> str:
        """The general path. Whatever an expression raises is this row's failure: it depends on its values."""
        names = dict(values)
        names[ROW] = _Row(values)
        context = self._compiled.new_context(names)
        pieces: list[str] = []
        chars = 0
        try:
            for piece in self._compiled.root_render_func(context):
                pieces.append(piece)
                chars += len(piece)
                if chars > OUTPUT_CHARS_MAX:
                    raise self._too_long()
        except RowError:
            raise
        except (UndefinedError, SecurityError) as error:
            raise self._failed(f"{error}{self._line_of(error.__traceback__)}") from None
        except Exception as error:
            # Not the error's own text: int('...') and its like quote the value.
            line = self._line_of(error.__traceback__)
            raise self._failed(f"an expression failed with {type(error).__name__}{line}") from None
        return "".join(pieces)

    def _line_of(self, traceback: TracebackType | None) -> str:
        line = 0
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == self._filename:
                line = self._compiled.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return f" (line {line} of the template)" if line else ""

    def _failed(self, why: str) -> RowError:
        return RowError(ErrorKind.TEMPLATE_ERROR, f"{self._what} could not be made: {why}")

    def _too_long(self) -> RowError:
        return self._failed(f"it is longer than {OUTPUT_CHARS_MAX:,} characters")


def columns_used(text: str, *, what: str = "the prompt") -> set[str]:
    """The columns a template names, also as ``row['my column']`` and ``row.name``. Raises UsageError.

    Names computed while rendering (``row[other]``) cannot be known and are not in it.
    """
    _, columns = _parse(_Environment(None), text, what)
    return columns


def _parse(environment: _Environment, text: str, what: str) -> tuple[nodes.Template, set[str]]:
    try:
        tree = environment.parse(text)
        columns = columns_named(tree)
    except TemplateSyntaxError as error:
        raise _syntax_error(what, error.lineno, error.message or "it does not parse") from None
    for node in tree.find_all((*_OTHER_TEMPLATES, nodes.Filter, nodes.Test, nodes.Name)):
        if isinstance(node, _OTHER_TEMPLATES):
            raise UsageError(
                f"{_capital(what)} refers to another template in line {node.lineno}. Templates stand alone: "
                "put the text into this one."
            )
        # Jinja itself would notice these two only when a row gets there.
        if isinstance(node, nodes.Filter) and node.name not in environment.filters:
            raise _syntax_error(what, node.lineno, f"there is no filter named {node.name!r}")
        if isinstance(node, nodes.Test) and node.name not in environment.tests:
            raise _syntax_error(what, node.lineno, f"there is no test named {node.name!r}")
        if isinstance(node, nodes.Name) and node.name == "self":
            raise _syntax_error(what, node.lineno, "'self' means the template itself, not a column")
    return tree, columns


def split_after_first(text: str, *, what: str = "the URL") -> tuple[str, str]:
    """A template that begins with an expression: that expression, and what follows it. Raises UsageError."""
    end = 0
    try:
        for _, kind, piece in _Environment(None).lex(text):
            end += len(piece)
            if kind == "variable_end":
                break
    except TemplateSyntaxError as error:
        raise _syntax_error(what, error.lineno, error.message or "it does not parse") from None
    return text[:end], text[end:]


def _syntax_error(what: str, line: int, said: str) -> UsageError:
    return UsageError(
        f"{_capital(what)} is no valid template, line {line}: {said.rstrip('.')}. A column whose name is no "
        "plain word is written {{ row['its name'] }}; braces that are meant literally stand between {% raw %} "
        "and {% endraw %}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
