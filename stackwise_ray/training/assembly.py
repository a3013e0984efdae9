"""From a trial and its data to the things that train: model, optimizer, objective, all on their device.

Called by the loop, once per attempt and once per stage. Nothing here runs a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.seeding import INIT, NOISE, stream_seed
from stackwise_ray.data import PreparedData, TrainingOrder, fixed_validation_windows
from stackwise_ray.flags import apply_flags
from stackwise_ray.models import FAMILIES, build_model
from stackwise_ray.models.component import attach_components, attached
from stackwise_ray.models.growth.adapters import adapter_parameters, insert_adapter
from stackwise_ray.models.growth.insertion import make_growable, make_identity, set_active, set_two_sided, untie_head
from stackwise_ray.models.growth.quantised import quantise_block
from stackwise_ray.models.growth.time_input import make_timed, takes_time
from stackwise_ray.models.stack_view import enable_activation_checkpointing, stack_view
from stackwise_ray.optim import build_optimizer
from stackwise_ray.training.compiled import require_compiler
from stackwise_ray.training.component_hooks import held_out_of
from stackwise_ray.training.initial import charged, check_tokenizer, initial_model
from stackwise_ray.training.objectives import OBJECTIVES, Objective
from stackwise_ray.training.parallel.parallelism import Parallelism, Replicated, SingleWorker
from stackwise_ray.training.stabilisers import scale_residuals, trained_projections
from stackwise_ray.training.stage import Stage, StagePlan
from stackwise_ray.training.stages import stage_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel


AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Everything that one worker trains with.

    Attributes:
        trial: With the edits of its flags.
        validation_windows: Offsets of the fixed validation set.
        held_out_windows: Offsets of other windows of the validation split, for components that calibrate on them;
            None: none does.
        initial: Initial values of the blocks that a stage of the plan sets back to them, by number.
        parallelism: How the workers divide the work.
    """

    trial: TrialConfig
    data: PreparedData
    model: PreTrainedModel
    plan: StagePlan
    order: TrainingOrder
    validation_windows: NDArray[np.int64]
    device: torch.device
    rank: int
    world_size: int
    initial: Mapping[int, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    parallelism: Parallelism
    held_out_windows: NDArray[np.int64] | None = None

    def enter(self, stage: Stage) -> StageTools:
        """Grows the model to `stage`, sets what trains in it and makes its optimizer and objective."""
        self.parallelism.make_whole()
        blocks = stack_view(self.model).blocks
        for number in stage.reset:
            blocks[number].load_state_dict(self.initial[number])
        for number in stage.inserted:
            make_identity(self.model, number)
        enter_stage(self.model, stage, seed=self.trial.seed)
        self.parallelism.share_out()
        training = self.trial.training
        return StageTools(
            stage=stage,
            optimizer=build_optimizer(self.model, self.trial.optimizer, training.lr),
            objective=OBJECTIVES.get(stage.objective)(self.trial, stage, self.data, self.order),
            scaler=torch.amp.GradScaler(self.device.type) if training.precision == "fp16" else None,
            parameters=[p for p in self.model.parameters() if p.requires_grad],
            capped=trained_projections(self.model) if training.spectral_norm else [],
        )

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Autocast to the trial's precision, or nothing for float32."""
        return autocast(self.trial, self.device.type)


@dataclass(frozen=True, kw_only=True)
class StageTools:
    """What a stage trains with.

    Attributes:
        scaler: Loss scaler of fp16; None for other precisions.
        parameters: Those that train, each once.
        capped: Matrices whose spectral norm is kept at 1 at most (`training.spectral_norm`).
    """

    stage: Stage
    optimizer: torch.optim.Optimizer
    objective: Objective
    scaler: torch.amp.GradScaler | None
    parameters: list[nn.Parameter]
    capped: list[torch.Tensor]


def assemble(
    trial: TrialConfig,
    data: PreparedData,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    *,
    accumulation: int | None = None,
) -> Assembly:
    """Builds the model from the `init` stream of the trial's seed and cuts the data; the same on every worker.

    Args:
        device: See `choose_device`.
        accumulation: Micro-batches per step that fit into `training.memory_bytes` (`planning.micro_batch`); None: the
            trial's own.

    Raises:
        ConfigError: Fields, flags, data and device do not go together.
    """
    trial = charged(apply_flags(trial))
    check_tokenizer(trial, data.directory / "tokenizer")
    if accumulation is not None:
        trial = replace(trial, training=replace(trial.training, accumulation=accumulation))
    if trial.training.compile:
        require_compiler(device)
    plan = stage_plan(trial)
    seq_len = trial.data.seq_len
    torch.manual_seed(stream_seed(trial.seed, INIT))
    model = build_training_model(trial, vocab_size=data.vocab_size, special_ids=data.special_ids)
    model.to(device)  # type: ignore[arg-type]  # its stub wraps the method without its own argument
    blocks = stack_view(model).blocks
    return Assembly(
        initial={
            number: {name: tensor.detach().clone() for name, tensor in blocks[number].state_dict().items()}
            for number in sorted({number for stage in plan.stages for number in stage.reset})
        },
        trial=trial,
        data=data,
        model=model,
        plan=plan,
        order=TrainingOrder(data.splits["train"].n_tokens, seq_len, trial.seed),
        validation_windows=fixed_validation_windows(
            data.splits["validation"].n_tokens, seq_len, trial.data.validation_tokens
        ),
        device=device,
        rank=rank,
        world_size=world_size,
        parallelism=_parallelism(trial, model, device, world_size),
        held_out_windows=held_out_of(trial, data.splits["validation"].n_tokens),
    )


def _parallelism(trial: TrialConfig, model: PreTrainedModel, device: torch.device, world_size: int) -> Parallelism:
    if trial.training.parallel == "replicated":
        return SingleWorker() if world_size == 1 else Replicated()
    if world_size == 1:
        raise ConfigError(
            "= sharded divides the model among several workers, but this trial has one; set resources.workers in a "
            "sweep, or write replicated",
            path="training.parallel",
        )
    from stackwise_ray.training.parallel.sharding import Sharded  # DTensor: half a second that other runs save

    return Sharded(model, device)


def build_training_model(
    trial: TrialConfig, *, vocab_size: int, special_ids: Mapping[str, int] | None, device: str = "cpu"
) -> PreTrainedModel:
    """The trial's model in training mode, with what its regime and `training` ask for (planning uses it too)."""
    model_config, plan = trial.model, stage_plan(trial)
    if trial.training.init_from is not None:
        model_config = replace(model_config, pretrained=str(initial_model(trial)))
    model = build_model(
        model_config, vocab_size=vocab_size, seq_len=trial.data.seq_len, special_ids=special_ids, device=device
    )
    if trial.model.role == "decoder" and FAMILIES.get(trial.model.family).can_be_two_sided:
        if not trial.fills_masks and not getattr(model.config, "is_causal", True):
            raise ConfigError(
                "names weights of a decoder that sees both sides (is_causal: false), but this trial trains a decoder "
                "that sees only the past; choose training.decoder_objective: bidirectional in a regime that has it, or "
                "other weights",
                path="model.pretrained" if trial.training.init_from is None else "training.init_from",
            )
        set_two_sided(model, trial.fills_masks)
    if trial.training.activation_checkpointing:
        enable_activation_checkpointing(model)
    if trial.training.time == "input":
        make_timed(model)
    elif takes_time(model):
        raise ConfigError(
            "= depth, but the initial weights are of a model that takes time as an input; choose input in a regime "
            "that has it, or other weights",
            path="training.time",
        )
    if plan.grows:
        make_growable(model, gated=any(stage.inserted for stage in plan.stages))
    if trial.training.residual_gain is not None:
        scale_residuals(model, trial.training.residual_gain)
    attach_components(model, trial.model.components, seed=trial.seed)
    _expect_no_padding(model)
    model.train()
    return model


def _expect_no_padding(model: PreTrainedModel) -> None:
    """Training windows are full, and GPT-2 of transformers looks for padding in every pass: on a GPU it waits."""
    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            module.warn_if_padding_and_no_attention_mask = _without_a_look  # type: ignore[assignment]


def _without_a_look(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """Stands in for the method of the same arguments."""


def enter_stage(model: PreTrainedModel, stage: Stage, *, seed: int = 0) -> None:
    """Gives the model the form of a stage: its active blocks, its head, its adapters, what trains, and in which mode
    each part is.

    `requires_grad` goes to the parameters of the stage's trained parts and is taken from all others; a parameter that
    two parts share (a tied head) trains if either does. Parts that do not train are in evaluation mode, also where
    adapters on them do.

    Args:
        seed: The trial's, for adapters that enter.
    """
    if stage.own_head:
        untie_head(model)
    set_active(model, stage.active_blocks)
    for adapters in stage.trainable.adapters:
        for number, rank in adapters.ranks:
            if adapters.quantised:
                quantise_block(model, number)
            own = stream_seed(seed, INIT, "adapters", adapters.name, number)
            insert_adapter(model, number, adapters.name, rank=rank, alpha=adapters.alpha, seed=own)
    view, trainable = stack_view(model), stage.trainable
    trained: list[nn.Module] = [view.blocks[number] for number in trainable.blocks]
    trained += view.embeddings if trainable.embeddings else ()
    trained += [view.time] if trainable.embeddings and view.time is not None else []
    trained += view.head if trainable.head else ()
    trained += [view.final_norm] if trainable.norm and view.final_norm is not None else []
    model.requires_grad_(False)
    model.train()
    kept = {id(part) for part in trained}
    for _, part in view.parts():
        if id(part) in kept:
            part.requires_grad_(True)
        else:
            part.eval()
    if view.embedding_dropout is not None and not trainable.embeddings:
        view.embedding_dropout.eval()
    for parameter in adapter_parameters(model):
        parameter.requires_grad_(True)
    for component in attached(model).values():
        for module in component.modules():
            module.requires_grad_(True)


def autocast(trial: TrialConfig, device_type: str) -> contextlib.AbstractContextManager[object]:
    """Autocast to the trial's precision on a kind of device, or nothing for float32."""
    dtype = AUTOCAST[trial.training.precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_type, dtype=dtype)


def choose_device(wanted: str, *, gpus: float | None = None) -> torch.device:
    """The device that `training.device` names; a share of a GPU is also a share of its memory.

    Args:
        gpus: GPUs that this process was given: `auto` is the CPU without one, and a GPU with one. None: nobody gave
            any out, and `auto` is a GPU where this process sees one.

    Raises:
        ConfigError: A GPU was asked for or given, and there is none; or `cuda` was asked for and none was given.
    """
    if wanted == "cpu" or (wanted == "auto" and gpus == 0):
        return torch.device("cpu")
    if gpus == 0:
        raise ConfigError(
            "= cuda, but this trial was given no GPU (resources.gpus_per_trial = 0); give it one, or choose cpu",
            path="training.device",
        )
    if not torch.cuda.is_available():
        if wanted == "auto" and gpus is None:
            return torch.device("cpu")
        raise ConfigError(
            f"= {wanted}, but torch sees no CUDA device here; choose cpu, or install a torch for CUDA"
            if gpus
            else "= cuda, but torch sees no CUDA device here; choose cpu or auto, or install a torch for CUDA",
            path="training.device",
        )
    device = torch.device("cuda", torch.cuda.current_device())
    if gpus is not None and gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus, device)  # else one trial can take what the next one counts on
    return device


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch's generators for what a step draws (dropout): a function of (seed, step, worker) alone.

    So a continued run draws what the uninterrupted one drew, whatever ran in between.
    """
    torch.manual_seed(stream_seed(seed, NOISE, "step", step, rank))


@contextlib.contextmanager
def float32_products(trial: TrialConfig, device: torch.device) -> Iterator[None]:
    """A GPU's float32 matrix products and convolutions as `training.tf32` says; the process's settings come back after.

    A trial on a CPU leaves them alone.

    Raises:
        ConfigError: TF32 was asked for, and the trial runs on a CPU.
    """
    tf32 = apply_flags(trial).training.tf32
    if device.type == "cpu":
        if tf32:
            raise ConfigError(
                "= true has no effect on a CPU, and this trial runs on one; write false, or give the trial a GPU",
                path="training.tf32",
            )
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32  # which torch has on otherwise
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms on a CPU, where they cost nothing measurable; the process's settings come back after.

    On a GPU they forbid the fused kernels of some ops, so there the process's own setting stays.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory with NaN finds bugs of kernels; it is no part of determinism, and it costs.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
