"""Drawing for reports: the style, the palette, and panels that become one PNG and an SVG each.

Called by the modules of this room, which say what is drawn. matplotlib loads on first use, without pyplot and
without a display. Colours are Okabe and Ito's, which all common forms of colour blindness tell apart; lines differ in
style and markers in shape as well, so the figures survive a black-and-white print.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stackwise_ray.core.atomic import atomic_path
from stackwise_ray.core.quantities import format_tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1a1a1a", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")
_DASHES = {"-": "none", "--": "9 4", "-.": "9 3 2 3", ":": "2 3"}
"""The line styles as dash patterns of an SVG stroke."""
_MARKERS = "osD^vPX"
GREY = "#5a5a5a"
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "lines.linewidth": 1.6,
    "svg.hashsalt": "stackwise_ray",  # the same data draw the same bytes
}
_LEGEND_WIDTH = 125
"""Characters that fit into one row of a figure's legend; a line's sample takes eight."""
_Draw = TypeVar("_Draw", bound=Callable[..., Any])


@dataclass(frozen=True)
class Panel:
    """One set of axes: the stem of its file, and what draws it."""

    name: str
    draw: Callable[[Axes], None]


def styled(draw: _Draw) -> _Draw:
    """Run a drawing function under the style of this module, leaving the user's matplotlib settings alone."""

    @functools.wraps(draw)
    def inside(*args: Any, **options: Any) -> Any:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return draw(*args, **options)

    return cast("_Draw", inside)


@dataclass(frozen=True, kw_only=True)
class PanelFigure:
    """A figure that is not drawn yet: all panels in one PNG with the arms' legend, and each in an SVG without.

    Attributes:
        path: The PNG; the SVGs lie beside it.
        note: Title of the legend.
        size: Inches of one panel.
    """

    path: Path
    panels: tuple[Panel, ...]
    arms: Sequence[str] = ()
    note: str = ""
    size: tuple[float, float] = (5.5, 3.9)

    @property
    def panel_paths(self) -> tuple[Path, ...]:
        """The SVGs in the order of the panels."""
        return tuple(self.path.with_name(f"{self.path.stem}-{panel.name}.svg") for panel in self.panels)

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that `draw_panels` writes."""
        return (self.path, *self.panel_paths)


@styled
def draw_panels(planned: PanelFigure) -> None:
    """Write all files of a figure, its panels two in a row of the PNG."""
    panels, arms, panel_size = planned.panels, planned.arms, planned.size
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = canvas(rows, columns, (columns * panel_size[0], rows * panel_size[1] + (0.3 if arms else 0)))
    for index, panel in enumerate(panels):
        panel.draw(axes[index // columns][index % columns])
    for index in range(len(panels), rows * columns):
        axes[index // columns][index % columns].set_visible(False)
    if arms:
        _legend(figure, arms, planned.note)
    save(figure, planned.path)
    for panel, path in zip(panels, planned.panel_paths, strict=True):
        alone, axes = canvas(1, 1, panel_size)
        panel.draw(axes[0][0])
        save(alone, path)


def canvas(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    sharey: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure without pyplot and its axes by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey, height_ratios=height_ratios)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.06)  # type: ignore[union-attr, call-arg]
    return figure, [list(row) for row in grid]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as its file name's suffix says, whole or not at all."""
    kind = path.suffix.removeprefix(".")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    return path


def arm_style(arms: Sequence[str], arm: str) -> dict[str, Any]:
    """Colour and line style of an arm; the order of the arms fixes them."""
    index = list(arms).index(arm)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": _LINES[index % len(_LINES)]}


def arm_marker(arms: Sequence[str], arm: str) -> str:
    """Marker of an arm."""
    return _MARKERS[list(arms).index(arm) % len(_MARKERS)]


def legend_entries(arms: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    """Name, colour and dash pattern of every arm, for a legend outside the figure."""
    styles = [(arm, arm_style(arms, arm)) for arm in arms]
    return tuple((arm, style["color"], _DASHES[style["linestyle"]]) for arm, style in styles)


def log_axis(axis: Any) -> None:
    """A logarithmic axis with plain labels (2 M, not 2 × 10⁶), sensible within one decade too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if low > 0 else 1.0
    steps: tuple[float, ...] = (1.0,)
    if decades <= 3:
        steps = (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0) if decades > 0.8 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(base=10, subs=steps))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_formatter(NullFormatter())


def tick(value: float, _: object = None) -> str:
    """A tick: 10k, 1.5M, 0.2."""
    return format_tick(value)


def nothing(axes: Axes, text: str) -> None:
    """Empty axes that say why they are empty."""
    axes.grid(visible=False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    if not axes.yaxis_inverted():  # rows of arms keep their names
        axes.tick_params(axis="y", length=0, labelleft=False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def _legend(figure: Figure, arms: Sequence[str], note: str) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linewidth=2, **arm_style(arms, arm)) for arm in arms]
    columns = max(1, min(len(arms), _LEGEND_WIDTH // (max(map(len, arms), default=0) + 8)))
    figure.legend(handles, list(arms), loc="outside upper center", ncols=columns, title=note, title_fontsize=8.5)
