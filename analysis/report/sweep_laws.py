"""The laws that a sweep's file declares, fitted to its runs: `- scaling_law: {...}` and `- isoflop: {}`.

Called by `summary`. A law that cannot be fitted keeps the reason in place of its fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError

from ..table.sweep_directory import Sweep

if TYPE_CHECKING:
    from ..scaling.isoflop import IsoFlopFit
    from ..scaling.scaling_law import ScalingFit


@dataclass(frozen=True, kw_only=True)
class DeclaredLaw:
    """A law that the file declares: its fit, or why there is none.

    Attributes:
        law: Name of the parametric law, or "isoflop".
        fit: Of the declared kind.
    """

    law: str
    fit: ScalingFit | IsoFlopFit | None
    refused: str | None = None

    @property
    def sentence(self) -> str:
        """What was found, its certificate included, or why nothing was."""
        return f"No law '{self.law}': {self.refused}" if self.fit is None else self.fit.sentence

    @property
    def believable(self) -> bool:
        """Whether there is a fit, every check was made, and none speaks against it."""
        if self.fit is None:
            return False
        certificate = getattr(self.fit, "certificate", None)
        return certificate.holds is True if certificate is not None else not getattr(self.fit, "refusals", ())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"law": self.law, "refused": self.refused, "fit": None if self.fit is None else self.fit.to_dict()}


_fits: dict[str, DeclaredLaw] = {}
"""By runs and options: a command writes the report and then prints it, and a fit with its certificate takes seconds."""


def declared_laws(sweep: Sweep) -> tuple[DeclaredLaw, ...]:
    """Fit every law that the file declares, in its order; the same runs are fitted once a process."""
    found = []
    for kind, options in sweep.declared_laws():
        key = f"{kind} {sorted(options.items())} {sweep.runs.attrs.get('exclusions')}\n{sweep.runs.to_csv(index=False)}"
        if key not in _fits:
            _fits[key] = _fitted(sweep, kind, options)
        found.append(_fits[key])
    return tuple(found)


def _fitted(sweep: Sweep, kind: str, options: Mapping[str, Any]) -> DeclaredLaw:
    # On first use: numpy's and scipy's optimisers, which no comparison needs.
    name = str(options.get("law", kind))
    try:
        if kind == "isoflop":
            from ..scaling.isoflop import fit_isoflop

            return DeclaredLaw(law=name, fit=fit_isoflop(sweep.runs, budgets="budget"))
        from ..scaling.scaling_law import fit_scaling_law

        return DeclaredLaw(law=name, fit=fit_scaling_law(sweep.runs, **options))
    except AnalysisError as error:
        return DeclaredLaw(law=name, fit=None, refused=str(error))
