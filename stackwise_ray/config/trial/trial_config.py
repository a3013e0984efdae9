"""The configuration of one trial: everything that decides its numbers.

Frozen, keyword-only dataclasses; each field has its unit and the reason for its default. Options of one regime or one
corpus are with that entry, in a subclass of `TrainingConfig` or `DataConfig` (`registered`). `config.loading` builds
them from presets and overrides, pydantic validates them once at that boundary, and `config.trial.rules` holds the rules
that span several fields. A `TrialConfig` is a value: flags and tuning return edited copies (`config.trial.editing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import ConfigDict, Field

from stackwise_ray.config.trial.registered import (
    Alternatives,
    NamedOptions,
    OptionsByName,
    OptionsOf,
    build_options,
    replace_options,
)
from stackwise_ray.core import registries

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning; a file of a newer version is refused."""

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict:
    """Unknown keys and wrong types are errors at the YAML boundary."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


# ----------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True, kw_only=True)
class ResolventApplyMixer(Strict):
    """The resolvent applied to values, y = (T − z)⁻¹ x: the default mixer of the bk family."""

    kind: Literal["resolvent_apply"] = "resolvent_apply"
    n_heads: Positive = 8  # tridiagonal operators per layer
    d_value: Positive = 8  # width of the values a head carries; below 8 the head is a funnel
    diagonal_features: bool = False  # add [Re g, Im g] of each head to what the output projection reads
    gradient: Literal["adjoint", "autograd"] = "adjoint"  # autograd: through the recursion, to compare


@dataclass(frozen=True, kw_only=True)
class ResolventDiagonalMixer(Strict):
    """Only diag((T − z)⁻¹) as features: with the original's settings below, the original model, made causal."""

    kind: Literal["resolvent_diagonal"] = "resolvent_diagonal"
    n_heads: Positive = 16  # one head is the original's; 16 is where more stops helping at the seed's size
    base: float | None = None  # constant part of the potential; None: learned, spread over (−1.9, 1.9)
    eta: Annotated[float, Field(gt=0)] | None = None  # Im z; None: learned, log-spaced over 0.02–1
    learn: tuple[Literal["potential", "hop", "eta"], ...] = (
        "potential",
        "hop",
        "eta",
    )  # the rest stays as set
    gradient: Literal["adjoint", "autograd", "diagonal"] = "adjoint"  # diagonal: the original's truncated one


@dataclass(frozen=True, kw_only=True)
class AttentionMixer(Strict):
    """Softmax attention with rotary positions inside the bk block: the matched comparison."""

    kind: Literal["attention"] = "attention"
    n_heads: Positive = 4


@dataclass(frozen=True, kw_only=True)
class NoMixer(Strict):
    """No mixing between positions: the token-local control of every ablation."""

    kind: Literal["none"] = "none"


Mixer = Annotated[ResolventApplyMixer | ResolventDiagonalMixer | AttentionMixer | NoMixer, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class SwiGLUChannelMixer(Strict):
    """down(SiLU(gate x) · up x) of width `d_ff`: the default channel mixer of the bk family."""

    kind: Literal["swiglu"] = "swiglu"


@dataclass(frozen=True, kw_only=True)
class ExpertsChannelMixer(Strict):
    """Several SwiGLUs of width `d_ff`, of which a router picks some for each token. All of them are computed and
    counted: see `stackwise_ray.models.bk.channel_mixers`."""

    kind: Literal["mixture_of_experts"] = "mixture_of_experts"
    n_experts: Annotated[int, Field(ge=2)] = 4  # the original's
    top_k: Positive = 1  # experts that a token takes its output from
    load_balance: NonNegative = 0.01  # weight of the load-balance loss; 0.01 is Switch Transformer's


ChannelMixer = Annotated[SwiGLUChannelMixer | ExpertsChannelMixer, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Strict):
    """Architecture and size, in the field's words; each family maps them onto its transformers config."""

    family: str  # a name in stackwise_ray.models: bert, modernbert, gpt2, llama, bk
    role: Literal["encoder", "decoder"]
    n_layers: Positive
    d_model: Positive
    n_heads: Positive | None = None  # attention heads; None in the bk family, whose mixer has its own
    n_kv_heads: Positive | None = None  # grouped-query attention (llama); None: as many as n_heads
    d_ff: Positive  # width of the channel mixer, of each expert where it has several
    vocab_size: Positive | None = None  # None: the tokenizer's
    max_positions: Positive | None = None  # rows of a learned position table (gpt2, bert); None: data.seq_len
    tie_embeddings: bool | None = None  # None: the family's published choice
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: libraries' defaults differ by family and would confound
    mixer: Mixer | None = None  # bk only
    channel_mixer: ChannelMixer | None = None  # bk only; None: swiglu
    components: Annotated[Mapping[str, Any], OptionsByName(registries.COMPONENTS)] = field(
        default_factory=NamedOptions
    )  # what flags select, by name in stackwise_ray.models.components, each with its options
    pretrained: str | None = None  # a path or hub name to take weights from; None: random initialisation


# ------------------------------------------------------------------------------------------------------ the data


@dataclass(frozen=True, kw_only=True)
class DataConfig(Strict):
    """Which text, cut how. The fingerprint of what it yields is part of the trial's identity.

    A corpus adds options of its own in a subclass, its `options`; `config.trial.data_config` builds one.
    """

    corpus: str  # a name in stackwise_ray.data.corpora
    tokenizer: str = "bytes"  # bytes | words | bpe:<size> | a path or hub name of a transformers tokenizer
    seq_len: Positive = 256  # tokens in a training window, which is also the context of a prediction
    validation_tokens: Positive = 65_536  # one fixed set of windows for validation/loss; 65,536 costs seconds
    final_evaluation: Literal["full", "fixed"] | None = None  # None: full for decoders, fixed for encoders


# -------------------------------------------------------------------------------------------------- the training


@dataclass(frozen=True, kw_only=True)
class Budget(Strict):
    """How long to train: exactly one of the four is set."""

    flops: Annotated[float, Field(gt=0)] | None = None  # counted training FLOPs: forward + backward + optimizer
    tokens: Annotated[float, Field(gt=0)] | None = None  # training tokens
    steps: Positive | None = None  # optimizer steps over the whole plan
    wall_seconds: Annotated[float, Field(gt=0)] | None = None  # seconds in training steps: no evaluation, no compiling

    @property
    def unit(self) -> Literal["flops", "tokens", "steps", "wall_seconds"]:
        """The one unit that is set."""
        if self.flops is not None:
            return "flops"
        if self.tokens is not None:
            return "tokens"
        return "wall_seconds" if self.steps is None else "steps"

    @property
    def amount(self) -> float:
        """How much of that unit."""
        amount = {"flops": self.flops, "tokens": self.tokens, "steps": self.steps}.get(self.unit, self.wall_seconds)
        if amount is None:
            raise ValueError("a budget has exactly one of flops, tokens, steps, wall_seconds")
        return float(amount)


@dataclass(frozen=True, kw_only=True)
class Schedule(Strict):
    """Learning rate over a trial's own steps, as a share of `training.lr`."""

    kind: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    warmup: Share = 0.05  # share of the steps with linear warm-up; at least one step where it is not 0
    decay: Share = 0.2  # wsd: share of the steps in the final linear decay
    final: Share = 0.1  # last learning rate as a share of the peak (cosine, wsd, linear)


class AbsentOptions:
    """What code that reads any trial finds where the regime of the trial lacks an option: that it does not happen.

    Not fields: no file can set them. A regime that has the option declares a field of the same name and default. An
    option that only its regime reads needs no line here.
    """

    blocks_per_stack = 1
    stage_split = cast("str | tuple[float, ...]", "uniform")
    time = "depth"
    decoder_objective = "noisy_context"
    consistency = 0.0
    entry = "full"
    cache = False
    cache_bytes = cast("int | None", None)
    finish = 0.0
    init_from = cast("str | None", None)
    charge_init = True


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(AbsentOptions, Strict):
    """How the model is trained: the options of every regime. A regime adds its own in a subclass, its `options`.

    `config.trial.training_config` builds one of the class that the regime has.
    """

    budget: Budget
    regime: str = "classical"  # classical is a plan of one stage; other regimes are plans of several
    lr: Annotated[float, Field(gt=0)] = 3e-3  # peak learning rate; right for models of about 1M parameters
    schedule: Schedule = field(default_factory=Schedule)
    batch_tokens: Positive = 4096  # global tokens per optimizer step: seq_len × sequences, over all workers
    accumulation: Positive = 1  # micro-batches per step; the loss is the same, the memory smaller
    memory_bytes: Positive | None = None  # peak that a step must fit into by its own accumulation; None: no limit
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0  # largest global norm; None: off
    spectral_norm: bool = False  # keep the last projection of each residual branch that trains at a norm of at most 1
    residual_gain: Annotated[float, Field(ge=0.3, le=0.7)] | None = None  # γ of x + γ f(x), kept in what is saved
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # autocast type; master weights stay float32
    tf32: bool = False  # a GPU's float32 products in TF32: faster, 10 bits of mantissa in place of 23
    activation_checkpointing: bool = False  # recompute each block in the backward pass
    compile: bool = False  # torch.compile of a step's passes; its seconds are no part of training's
    evaluations: Positive = 10  # validations spread evenly over the budget, the last one at its end
    report_seconds: NonNegative = 1.0  # least time between two reports of train/loss
    parallel: Literal["replicated", "sharded"] = "replicated"  # several workers: all hold the model, or shards (FSDP2)
    checkpoint_seconds: NonNegative = 20.0  # least time between two; more while they cost over 2 % of it; 0: every step
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where the trial was given one


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Strict):
    """The update rule; the learning rate and its schedule are in `training`."""

    kind: str = "adamw"  # a name in stackwise_ray.optim
    betas: tuple[Share, Share] = (0.9, 0.95)  # 0.95: the usual second moment of language models
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: NonNegative = 0.1  # on matrices; vectors, norms and embeddings' positions are not decayed


@dataclass(frozen=True, kw_only=True)
class TrialConfig(Strict):
    """One trial. Its canonical hash, with the data fingerprint, is the `trial_id` (`config.identity`)."""

    model: ModelConfig
    data: Annotated[DataConfig, OptionsOf("corpus", registries.CORPORA)]
    training: Annotated[TrainingConfig, OptionsOf("regime", registries.REGIMES)]
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    flags: tuple[str, ...] = ()  # names in stackwise_ray.flags, each a pure edit of this config
    seed: int = 0  # root seed of the named streams init, data order, noise
    schema_version: int = SCHEMA_VERSION

    @property
    def fills_masks(self) -> bool:
        """Whether the model predicts masked tokens from both sides: encoders, and bidirectional decoders."""
        return self.model.role == "encoder" or self.training.decoder_objective == "bidirectional"


TRAINING = Alternatives(TrainingConfig, "regime", registries.REGIMES, "training")
DATA = Alternatives(DataConfig, "corpus", registries.CORPORA, "data")


def training_config(**options: Any) -> TrainingConfig:
    """Training options of the class that their regime has, from Python values.

    Raises:
        ConfigError: There is no such regime, or it lacks one of the options.

    >>> training_config(budget=Budget(steps=10), regime="append", trunk="trainable").trunk
    'trainable'
    """
    built: TrainingConfig = build_options(TRAINING, **options)
    return built


def data_config(**options: Any) -> DataConfig:
    """Data options of the class that their corpus has; otherwise as `training_config`."""
    built: DataConfig = build_options(DATA, **options)
    return built


def replace_training(training: TrainingConfig, **changes: Any) -> TrainingConfig:
    """A copy with changes; `regime` among them makes it one of that regime's class.

    Raises:
        ConfigError: As `training_config`; also where another regime would lose a value that is not at its default.
    """
    changed: TrainingConfig = replace_options(TRAINING, training, **changes)
    return changed


def replace_data(data: DataConfig, **changes: Any) -> DataConfig:
    """A copy with changes, likewise with another corpus."""
    changed: DataConfig = replace_options(DATA, data, **changes)
    return changed
