"""A workflow as a small SVG for notebooks: its tasks in layers, its edges between them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .problems import WorkflowError

if TYPE_CHECKING:
    from .workflow import Workflow

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 44, 24, 46, 12
_COLOURS = {"llm": "#dbeafe", "agent": "#e0e7ff", "map": "#dcfce7", "approval": "#fef3c7", "when": "#fae8ff"}
#: tasks of one layer that are drawn; the layer says how many more there are
_MAX_ROW, _MAX_ROWS = 12, 40


def workflow_html(workflow: Workflow) -> str:
    """Inline HTML of the DAG, without scripts or outside resources; every text from the workflow is escaped.

    A workflow whose tasks wait for each other is shown with what is wrong instead.
    """
    from .graph import generations

    title = f"<b>{escape(workflow.name)}</b> · {len(workflow.tasks)} tasks"
    try:
        layers = generations(workflow)
    except WorkflowError as error:
        return f"<div>{title}<pre>{escape(str(error))}</pre></div>"
    return f"<div>{title}<br>{_svg(workflow, layers[:_MAX_ROWS])}</div>"


def _svg(workflow: Workflow, layers: list[list[str]]) -> str:
    places: dict[str, tuple[int, int]] = {}
    notes: list[str] = []
    wide = max((min(len(layer), _MAX_ROW) for layer in layers), default=0)
    for row, layer in enumerate(layers):
        top = _MARGIN + row * (_HEIGHT + _GAP_Y)
        shown = layer[:_MAX_ROW]
        left = _MARGIN + (wide - len(shown)) * (_WIDTH + _GAP_X) // 2
        places.update((name, (left + i * (_WIDTH + _GAP_X), top)) for i, name in enumerate(shown))
        if len(layer) > len(shown):
            notes.append(f'<text x="4" y="{top + 10}" font-size="10">+{len(layer) - len(shown)}</text>')
    width = 2 * _MARGIN + wide * (_WIDTH + _GAP_X)
    height = 2 * _MARGIN + len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        *_edges(workflow, places),
        *(_box(workflow, name, *place) for name, place in places.items()),
        *notes,
        "</svg>",
    ]
    return "".join(parts)


def _edges(workflow: Workflow, places: dict[str, tuple[int, int]]) -> list[str]:
    drawn = []
    for edge in workflow.edges():
        if edge.src not in places or edge.dst not in places:
            continue
        (x1, y1), (x2, y2) = places[edge.src], places[edge.dst]
        x1, x2, y1 = x1 + _WIDTH // 2, x2 + _WIDTH // 2, y1 + _HEIGHT
        middle = (y1 + y2) // 2
        dash = ' stroke-dasharray="4 3"' if edge.kind == "order" else ""
        path = f"M{x1} {y1} C{x1} {middle} {x2} {middle} {x2} {y2}"
        drawn.append(f'<path d="{path}" fill="none" stroke="#94a3b8"{dash}/>')
    return drawn


def _box(workflow: Workflow, name: str, x: int, y: int) -> str:
    task = workflow.tasks[name]
    short = name if len(name) <= 20 else name[:19] + "…"
    colour = _COLOURS.get(task.kind, "#f1f5f9")
    return (
        f"<g><title>{escape(task.description or name)}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{colour}" stroke="#64748b"/>'
        f'<text x="{x + 10}" y="{y + 19}" fill="#0f172a">{escape(short)}</text>'
        f'<text x="{x + 10}" y="{y + 35}" fill="#475569" font-size="10">{escape(task.kind)}</text></g>'
    )
