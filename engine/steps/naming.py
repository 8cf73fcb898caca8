"""Which columns a template names, and which of them it cannot do without.

Rules of this file:
1. What an expression names while it is rendered (``row[other]``) cannot be known and counts for nothing.
2. A column can be done without where everything that uses it asks first: ``{{ short or text }}``,
   ``{{ short | default(text) }}``, ``{% if short %}...{{ short }}...{% endif %}``, ``short is defined``, ``short is none``.
"""

from jinja2 import meta, nodes

ROW = "row"  # the whole row, for columns whose names are no identifiers: {{ row['my column'] }}

_ASKING_TESTS = frozenset({"defined", "undefined", "none"})
_ASKING_FILTERS = frozenset({"default", "d"})


def columns_named(tree: nodes.Template) -> set[str]:
    """All that a template names, also as ``row['my column']`` and ``row.name``."""
    names = set(meta.find_undeclared_variables(tree))
    if ROW in names:
        names.discard(ROW)
        for item in tree.find_all((nodes.Getitem, nodes.Getattr)):
            if (column := _column_of_row(item)) is not None:
                names.add(column)
    return names


def columns_needed(tree: nodes.Template, columns: frozenset[str]) -> frozenset[str]:
    """Those of ``columns`` (all that it names) that it uses without having asked whether they are there."""
    found: set[str] = set()
    _need(tree, columns, frozenset(), found)
    return frozenset(found)


def plain_slots(
    tree: nodes.Template, columns: frozenset[str]
) -> tuple[list[str], list[tuple[int, str]]] | None:
    """The template as literal pieces and slots, if it has nothing but text and columns; else None."""
    pieces: list[str] = []
    slots: list[tuple[int, str]] = []
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            return None
        for node in statement.nodes:
            if isinstance(node, nodes.TemplateData):
                pieces.append(node.data)
                continue
            column = _column(node, columns)
            if column is None:
                return None
            slots.append((len(pieces), column))
            pieces.append("")
    return pieces, slots


def _column(node: nodes.Node, columns: frozenset[str]) -> str | None:
    """The column that an expression is, None for any other expression."""
    if isinstance(node, nodes.Name):
        return node.name if node.name in columns and node.name != ROW else None
    return _column_of_row(node)


def _column_of_row(node: nodes.Node) -> str | None:
    """The column that ``row['name']`` or ``row.name`` means, None for any other expression."""
    if isinstance(node, (nodes.Getitem, nodes.Getattr)):
        if not (isinstance(node.node, nodes.Name) and node.node.name == ROW):
            return None
        if isinstance(node, nodes.Getattr):
            return node.attr
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return node.arg.value
    return None


# --- what is needed -----------------------------------------------------------------------------------------


def _need(node: nodes.Node, columns: frozenset[str], asked: frozenset[str], found: set[str]) -> None:
    """Put into ``found`` what ``node`` uses, but for what was ``asked`` about around it."""
    column = _column(node, columns)
    if column is not None:
        if column not in asked:
            found.add(column)
    elif isinstance(node, nodes.Or):
        _need_if_present(node.left, columns, asked, found)
        _need(node.right, columns, asked, found)
    elif isinstance(node, nodes.And):
        _need_if_present(node.left, columns, asked, found)
        _need(node.right, columns, asked | _asked(node.left, columns), found)
    elif isinstance(node, (nodes.If, nodes.CondExpr)):
        _need_if_present(node.test, columns, asked, found)
        inside = asked | _asked(node.test, columns)
        for child in node.iter_child_nodes(exclude=("test",)):
            _need(child, columns, inside, found)
    elif isinstance(node, (nodes.Not, nodes.Test, nodes.Filter)):
        _need_if_present(node, columns, asked, found)
    else:
        for child in node.iter_child_nodes():
            _need(child, columns, asked, found)


def _need_if_present(
    node: nodes.Node, columns: frozenset[str], asked: frozenset[str], found: set[str]
) -> None:
    """As ``_need``, where a column by itself is only asked whether it is there, or holds anything."""
    if _column(node, columns) is not None:
        return
    if isinstance(node, nodes.Not):
        _need_if_present(node.node, columns, asked, found)
    elif isinstance(node, (nodes.And, nodes.Or)):
        _need_if_present(node.left, columns, asked, found)
        more = _asked(node.left, columns) if isinstance(node, nodes.And) else frozenset()
        _need_if_present(node.right, columns, asked | more, found)
    elif isinstance(node, (nodes.Test, nodes.Filter)) and node.node is not None:
        is_asking = node.name in (_ASKING_TESTS if isinstance(node, nodes.Test) else _ASKING_FILTERS)
        (_need_if_present if is_asking else _need)(node.node, columns, asked, found)
        for child in node.iter_child_nodes(exclude=("node",)):
            _need(child, columns, asked, found)
    elif isinstance(node, (nodes.Test, nodes.Filter)):  # a block of text that is filtered
        for child in node.iter_child_nodes():
            _need(child, columns, asked, found)
    else:
        _need(node, columns, asked, found)


def _asked(node: nodes.Node, columns: frozenset[str]) -> frozenset[str]:
    """The columns that a condition asks about."""
    column = _column(node, columns)
    if column is not None:
        return frozenset({column})
    if isinstance(node, nodes.Not) or (isinstance(node, nodes.Test) and node.name in _ASKING_TESTS):
        return _asked(node.node, columns)
    if isinstance(node, (nodes.And, nodes.Or)):
        return _asked(node.left, columns) | _asked(node.right, columns)
    return frozenset()
