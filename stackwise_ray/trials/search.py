"""`kind: search`: Optuna proposes points; the study lives in memory and is rebuilt from the journal.

Trial n samples with its own sampler, seeded by (root seed, "search", n). The journal stores its point as a decision
before the trial runs. So after a kill the study is replayed: known points go through `ask` with their values fixed,
known results through `tell`, and the search continues with the next number. No point is lost, and none is drawn anew:
what is proposed again is the recorded point itself, not what Optuna makes of it.

A sampler may ask for a space-filling start: its first points are those of a scrambled Sobol sequence (Owen, 1998), one
sequence per search.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from stackwise_ray.config.space.designs import draw
from stackwise_ray.config.space.domains import (
    Choice,
    Factor,
    IntRange,
    LogIntRange,
    LogUniform,
    Normal,
    Resolve,
    Space,
    Subsets,
    Uniform,
)
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.core.seeding import SEARCH, stream_seed
from stackwise_ray.trials.samplers import SAMPLERS
from stackwise_ray.trials.sources import Proposal
from stackwise_ray.trials.tuning import quantile

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_TAIL = 1e-6
"""The share of a normal distribution beyond either end that no search draws."""
_TRIES_OF_THE_MODEL = 20
"""After so many rejected points of one trial the next are drawn at random: a model that learns nothing from a rejection
would propose the same forbidden value again and again."""
MOST_REJECTIONS = 500
"""Draws of one trial that may break a constraint before the space counts as empty."""


def silence_optuna() -> None:
    """Turn off Optuna's log and its warnings about experimental options: a user of a search cannot act on them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class OptunaSource:
    """A `TrialSource` that asks Optuna for each point.

    Args:
        resolve: From a (partial) point to the whole trial as plain data, for conditions and constraints.
        propose: From trial number and point to the proposal.
        goals: What is optimised, one or several.
        known: The journal's decisions of kind "search": number to point.
        record: Stores such a decision before its trial runs.
        root_seed: Of the "search" stream.
    """

    def __init__(
        self,
        space: Space,
        *,
        sampler: str,
        trials: int,
        resolve: Resolve,
        propose: Callable[[int, Mapping[str, Any]], Proposal],
        goals: Sequence[Goal],
        known: Mapping[str, Mapping[str, Any]],
        record: Callable[[str, Mapping[str, Any]], object],
        root_seed: int = 0,
    ) -> None:
        silence_optuna()
        self._space, self._resolve, self._make = space, resolve, propose
        self._trials, self._root_seed = trials, root_seed
        self._metrics = [goal.metric for goal in goals]
        entry = SAMPLERS.get(sampler)
        assert entry.make is not None, sampler
        self._sampler, self._spread = entry.make, entry.spread
        self._known, self._record = dict(known), record
        self._study = optuna.create_study(
            directions=[goal.direction for goal in goals],
            sampler=self._seeded(0),
        )
        self._number = 0
        self._asked: dict[int, optuna.Trial] = {}

    def propose(self) -> Proposal | None:
        if self._number >= self._trials:
            return None
        number, self._number = self._number, self._number + 1
        key = str(number)
        if key in self._known:
            self._study.sampler = self._seeded(number)
            known = self._known[key]
            self._study.enqueue_trial(self._raw(known, key))
            trial = self._study.ask()
            point, _ = draw(self._space, partial(suggest, trial), self._resolve)
            # A value may change in its last digit on its way through Optuna's parameter and back.
            proposal = self._make(number, {path: known.get(path, value) for path, value in point.items()})
        else:
            trial, proposal = self._draw(number)
            self._record(key, dict(proposal.parameters))
        self._asked[number] = trial
        return proposal

    @property
    def exhausted(self) -> bool:
        return self._number >= self._trials

    def ended(self, proposal: Proposal, record: TrialRecord) -> None:
        trial = self._asked.pop(proposal.key)
        values = [record.metrics[metric] for metric in self._metrics if metric in record.metrics]
        if record.status == "finished" and len(values) == len(self._metrics):
            self._study.tell(trial, values)
        elif record.status == "stopped" and len(values) == len(self._metrics) == 1:
            trial.report(values[0], step=int(record.metrics.get("tokens/total", 0)))
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)  # Optuna leaves failed trials out of its model

    def expected(self) -> int:
        return self._trials

    def _raw(self, point: Mapping[str, Any], key: str) -> dict[str, Any]:
        """A known point as Optuna's parameters.

        Raises:
            ConfigError: The space was changed and no longer contains it.
        """
        raw: dict[str, Any] = {}
        for factor in self._space.factors:
            if factor.path in point:
                try:
                    raw.update(parameters(factor, point[factor.path]))
                except ValueError:
                    raise ConfigError(
                        f"no longer contains {factor.path} = {point[factor.path]}, which trial {key} of this sweep "
                        "has; put this value back, or give the changed search another name",
                        path="search.space",
                    ) from None
        return raw

    def _seeded(self, *names: int, blind: bool = False) -> BaseSampler:
        make = SAMPLERS.get("random").make if blind else self._sampler
        assert make is not None
        return make(stream_seed(self._root_seed, SEARCH, *names) % 2**32)  # numpy's legacy generators' range

    def _draw(self, number: int) -> tuple[optuna.Trial, Proposal]:
        """A new point that meets every constraint: the ones that do not are drawn again, never penalised."""
        broken: str | None = None
        for attempt in range(MOST_REJECTIONS):
            names = (number, attempt) if attempt else (number,)
            self._study.sampler = self._seeded(*names, blind=attempt >= _TRIES_OF_THE_MODEL)
            if number < self._spread:
                self._study.enqueue_trial(self._spread_point(number + attempt * self._spread), skip_if_exists=False)
            trial = self._study.ask()
            point, broken = draw(self._space, partial(suggest, trial), self._resolve)
            if broken is None:
                return trial, self._make(number, point)
            self._study.tell(trial, state=TrialState.FAIL)
        raise ConfigError(
            f"{MOST_REJECTIONS} draws in a row were no valid trials, the last because: {broken}; narrow the domains or "
            "add a constraint under search.require",
            path="search.space",
        )

    def _spread_point(self, index: int) -> dict[str, Any]:
        """Point `index` of the search's Sobol sequence as Optuna's parameters, inactive factors included."""
        import numpy as np
        from scipy.stats import qmc  # here: most of a second, and most searches do not begin so

        seed = stream_seed(self._root_seed, SEARCH, "spread")
        sequence = qmc.Sobol(len(self._space.factors), rng=np.random.default_rng(seed))
        if index:
            sequence.fast_forward(index)
        raw: dict[str, Any] = {}
        for factor, share in zip(self._space.factors, sequence.random(1)[0], strict=True):
            raw.update(parameters(factor, quantile(factor.domain, float(share))))
        return raw


def suggest(trial: optuna.Trial, factor: Factor) -> Any:
    """One value of a factor by Optuna's define-by-run interface; the parameter is named by its path."""
    path = factor.path
    match factor.domain:
        case Choice(values) as domain:
            if domain.ascending is not None:
                return domain.ascending[trial.suggest_int(path, 0, len(values) - 1)]
            return values[trial.suggest_categorical(path, list(range(len(values))))]  # values may be mappings
        case Uniform(low, high):
            return trial.suggest_float(path, low, high)
        case LogUniform(low, high):
            return trial.suggest_float(path, low, high, log=True)
        case IntRange(low, high):
            return trial.suggest_int(path, low, high)
        case LogIntRange(low, high):
            return trial.suggest_int(path, low, high, log=True)
        case Normal() as domain:
            return domain.at(trial.suggest_float(f"{path}:quantile", _TAIL, 1 - _TAIL))
        case Subsets(items):
            return [item for item in items if trial.suggest_categorical(f"{path}:{item}", [False, True])]


def parameters(factor: Factor, value: Any) -> dict[str, Any]:
    """The Optuna parameters from which `suggest` makes `value`.

    Raises:
        ValueError: The domain does not contain it.
    """
    path, domain = factor.path, factor.domain
    match domain:
        case Choice(values):
            return {path: (values if domain.ascending is None else domain.ascending).index(value)}
        case Normal(mean, deviation):
            share = NormalDist(mean, deviation).cdf(value)
            return {f"{path}:quantile": min(max(share, _TAIL), 1 - _TAIL)}  # rounding may lead beyond the ends
        case Subsets(items):
            if not set(value) <= set(items):
                raise ValueError(value)
            return {f"{path}:{item}": item in value for item in items}
        case Uniform(low, high) | LogUniform(low, high) | IntRange(low, high) | LogIntRange(low, high):
            if not low <= value <= high:
                raise ValueError(value)
            return {path: value}
