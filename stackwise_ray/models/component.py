"""The component protocol: what an optimization flag selects in a model, and all that the program asks of it.

A component is declared by a `Component` in `stackwise_ray.models.components`, registered under its own name; the
declaration loads without torch. `model.components` of a trial selects components and holds their options. On a model a
component is an `Attached`: `attach_components` makes them, in `Component.order`, and `attached` finds them again. The
loop, the step, the planner, checkpoints, saved models and reports ask `attached` and know no component by name.

Not here: what a flag writes (`flags`), and where the work after training runs (`training.component_scorer`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from stackwise_ray.config.trial import TrialConfig

Cost = Literal["most", "least"]
"""The step that costs most, or least, of all that a component can make of a training step."""
Windows = Literal["validation", "held_out"]
"""The fixed validation windows, or other windows of the same split, which no reported loss of the training sees."""
Work = Generator[None, None, dict[str, float]]
"""Work that yields between batches and returns metrics by path."""
Forward = Callable[[Mapping[str, Any]], Any]
"""From the inputs of a model to logits (batch, n, vocab_size)."""

SAVED = "stackwise_components"
"""Attribute of a transformers config that says which components a saved model has, and in which state."""
_ATTACHED = "_attached_components"


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """What a component does not go with.

    Attributes:
        path: Dotted path of a field of the trial.
        values: The values of it that are refused.
        reason: Why, as the end of a sentence.
    """

    path: str
    values: tuple[Any, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A pass over windows.

    Attributes:
        loss: Nats per scored position.
        flops: FLOPs that the passes really took, counted, all workers together.
        tokens: Positions that went through the model.
    """

    loss: float
    flops: int
    tokens: int


class Scorer(Protocol):
    """What the work after training may use."""

    def score(self, windows: Windows, forward: Forward) -> Generator[None, None, Scored]:
        """Runs `forward` on all windows, shared out over the workers, and counts its FLOPs batch by batch."""
        ...

    def total(self, number: int) -> int:
        """The sum of a number over all workers."""
        ...


class Attached:
    """A component on one model. Every hook here does nothing, so that a component has only those that it needs."""

    varies: bool = False
    """Whether FLOPs of a step depend on the step: then they are counted per step, and the plan gives bounds."""

    def modules(self) -> Iterable[nn.Module]:
        """Modules that the component added to the model; they train in every stage."""
        return ()

    def begin_step(self, *, step: int, share: float) -> str:
        """Called before every training step.

        Args:
            step: Number of the step in the whole run, from 0; what is drawn follows from it and the seed alone.
            share: Of the stage's budget that is used.

        Returns:
            What the FLOPs of the step depend on, as a key: steps of equal keys cost the same. Empty: nothing.
        """
        return ""

    def take_cost(self, cost: Cost) -> None:
        """Makes the next training step the one that costs most, or least."""

    def auxiliary_loss(self, loss: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What is added to the loss of the micro-batch whose forward pass has just run; reported losses are without it.

        Args:
            loss: From logits (batch, n, vocab_size) to the micro-batch's part of the loss.
        """
        return None

    def modelled_flops(self, *, block: float, head: float) -> float:
        """FLOPs that the step which `begin_step` announced takes beside the plain one, by formula.

        Args:
            block, head: Forward and backward FLOPs of one block, and of the head, in the unit of the answer.
        """
        return 0.0

    def after_training(self, scorer: Scorer) -> Work:
        """Work after the last step: calibration, rebuilding, an evaluation pass of its own. Returns metrics."""
        return {}
        yield

    def costliest_pass(self, inputs: Mapping[str, Any]) -> None:
        """Runs its own evaluation pass in the form that costs most; also on fake tensors."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint and a saved model hold beside tensors, as JSON data."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave.

        Raises:
            ConfigError: It is something else; the path is within the state.
        """


class Component:
    """What a component declares; loads without torch.

    A subclass sets the class attributes.
    """

    name: ClassVar[str]
    """The registered name, and the key in `model.components`."""
    implementation: ClassVar[str]
    """`module:Class` of its `Attached`, which loads torch; made with (model, options, seed=…)."""
    options: ClassVar[type]
    """A frozen dataclass of its options, each with a default."""
    order: ClassVar[int] = 0
    """Components are attached in rising order: those that remove parts before those that wrap what is left."""
    conflicts: ClassVar[tuple[Conflict, ...]] = ()
    one_stage: ClassVar[str | None] = None
    """Why it does not go with a plan of several stages; None: it does."""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    observable: ClassVar[str]
    """Path of a metric that shows that the component did something; the contract test reads it."""

    def refuse(self, trial: TrialConfig, options: Any) -> tuple[str, str] | None:
        """A field of the trial that does not fit these options and what is wrong with it, beside the conflicts."""
        return None

    def misfit(self, options: Any, *, n_layers: int) -> tuple[str, str] | None:
        """An option that a model of so many layers has no place for and what is wrong with it; None: they fit.

        Asked before the component is put on a saved model; `refuse` asks it of a trial where that is wanted.
        """
        return None

    def held_out_tokens(self, options: Any) -> int:
        """Tokens of validation text outside the fixed windows that `Attached.after_training` wants."""
        return 0

    def evaluation_bound(self, options: Any, *, validation: int, held_out: int) -> tuple[int, int]:
        """At most how many sequences `Attached.after_training` runs over: (in the plain pass, in its own costliest).

        Args:
            validation, held_out: Number of windows of either set.
        """
        return 0, 0

    def report(self, metrics: Mapping[str, float]) -> list[str]:
        """Its part of a trial's evaluation report, as lines of Markdown: here a table of its metrics."""
        rows = [
            f"| {metric.axis} | {format_metric(metric.path, metrics[metric.path])} |"
            for metric in self.metrics
            if metric.path in metrics
        ]
        return ["| | |", "|---|---|", *rows]

    def attach(self, model: PreTrainedModel, options: Any, *, seed: int) -> Attached:
        """Puts the component on a model.

        Args:
            seed: The trial's; what is drawn comes from a stream of the component's own name.
        """
        module, _, name = self.implementation.partition(":")
        found: Attached = getattr(importlib.import_module(module), name)(model, options, seed=seed)
        return found


COMPONENTS: Registry[Component] = registries.COMPONENTS


def attach_components(model: PreTrainedModel, selected: Mapping[str, Any], *, seed: int = 0) -> None:
    """Puts the selected components on a model, in their declared order.

    Args:
        selected: Options by component name.
    """
    chosen = sorted((COMPONENTS.get(name) for name in selected), key=lambda one: (one.order, one.name))
    found = {one.name: one.attach(model, selected[one.name], seed=seed) for one in chosen}
    if found:
        setattr(model, _ATTACHED, found)


def attached(model: Any) -> Mapping[str, Attached]:
    """The components of a model by name, in their order; empty for a plain model."""
    found: Mapping[str, Attached] = getattr(model, _ATTACHED, {})
    return found


def write_components(model: PreTrainedModel, selected: Mapping[str, Any]) -> None:
    """Writes options and state of the model's components into its config, which is saved with it."""
    found = attached(model)
    forget_saved(model.config)
    if found:
        record = {name: {"options": asdict(selected[name]), "state": one.state()} for name, one in found.items()}
        setattr(model.config, SAVED, record)


def forget_saved(config: Any) -> None:
    """Takes out of a transformers config what a saved model had: a trial selects its components itself."""
    vars(config).pop(SAVED, None)


def attach_saved(model: PreTrainedModel, source: str) -> None:
    """Puts the components on a model that was made from a saved config, in the state in which they were saved.

    Args:
        source: The file of that config, for messages.

    Raises:
        ConfigError: It names a component that is not there, or options or a state that the component does not have.
    """
    from stackwise_ray.models.stack_view import stack_view

    record: Any = getattr(model.config, SAVED, {})
    if attached(model):
        return
    if not isinstance(record, Mapping):
        problem = f"= {record!r}, but it must map components to their options and states; save the model again"
        raise ConfigError(problem, path=SAVED, source=source)
    saved = {name: _saved(name, one, source) for name, one in record.items()}
    for name, (options, _) in saved.items():
        with at_fault(COMPONENTS, name, "its `misfit`"):
            wrong = COMPONENTS.get(name).misfit(options, n_layers=len(stack_view(model).blocks))
        if wrong is not None:
            raise ConfigError(wrong[1], path=f"{SAVED}.{name}.options.{wrong[0]}", source=source)
    attach_components(model, {name: options for name, (options, _) in saved.items()})
    for name, one in attached(model).items():
        try:
            one.restore(saved[name][1])
        except ConfigError as error:
            inner = f".{error.path}" if error.path else ""
            raise ConfigError(error.problem, path=f"{SAVED}.{name}.state{inner}", source=source) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a component that does not look
            problem = f"= {saved[name][1]!r} is not what {name} saves ({type(error).__name__}: {error})"
            raise ConfigError(f"{problem}; save the model again", path=f"{SAVED}.{name}.state", source=source) from None


def component_parameters(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that components added, which a class of transformers does not know."""
    own = {id(p) for one in attached(model).values() for module in one.modules() for p in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def begin_step(model: Any, *, step: int, share: float) -> str:
    """Announces a training step to all components; the key of what its FLOPs depend on."""
    keys = {name: one.begin_step(step=step, share=share) for name, one in attached(model).items()}
    return ",".join(f"{name}:{key}" for name, key in keys.items() if key)


def varying(model: Any) -> bool:
    """Whether the FLOPs of a training step of this model depend on the step."""
    return any(one.varies for one in attached(model).values())


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """What a saved config holds of one component, as it was written."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    options: dict[str, Any]
    state: dict[str, Any]


def _saved(name: str, plain: Any, source: str) -> tuple[Any, Mapping[str, Any]]:
    """(options, state) of a saved component, held against what it declares."""
    from stackwise_ray.config.trial.validation import Origin, validate

    place = f"{SAVED}.{name}"
    try:
        kind = COMPONENTS.get(name).options
    except ConfigError as error:
        raise error.at(path=place, source=source) from None
    record = validate(_Saved, plain, locate=lambda key: Origin(source, f"{place}.{key}" if key else place))
    return validate(kind, record.options, locate=lambda key: Origin(source, f"{place}.options.{key}")), record.state
