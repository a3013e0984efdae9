"""The configuration of one trial: everything that decides its numbers.

Frozen, keyword-only dataclasses; each field has its unit and the reason for its default. `config.loading` builds
them from presets and overrides, pydantic validates them once at that boundary, and `config.trial.rules` holds the rules
that span several fields. A `TrialConfig` is a value: flags and tuning return edited copies (`config.trial.editing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from stackwise_ray.config.trial.registered import NamedOptions, OptionsByName
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
    n_heads: Positive = 8  # tridiagonal operators a layer
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
    top_k: Positive = 1  # experts a token takes its output from
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
class MarkovSource(Strict):
    """A generated source with a known entropy rate; it depends on nothing but these numbers."""

    order: Positive = 2  # symbols of context that decide the next
    n_symbols: Positive = 16  # alphabet size; order 2 gives 256 contexts, learnable in seconds
    concentration: Annotated[float, Field(gt=0)] = 0.3  # Dirichlet parameter of each row; smaller: more predictable
    n_tokens: Positive = 1_000_000  # train tokens; validation and test have a tenth each
    seed: int = 0  # of the source itself, not of the trial


@dataclass(frozen=True, kw_only=True)
class AssociativeRecallSource(Strict):
    """Generated sequences of key-value pairs and queries; they depend on nothing but these numbers."""

    n_pairs: Positive = 8  # pairs a sequence, all keys different: what a state has to hold
    n_queries: Positive = 8  # keys asked for again, each once: at most n_pairs
    n_keys: Positive = 32  # alphabet of the keys: n_pairs to 52
    n_values: Annotated[int, Field(ge=2)] = 32  # alphabet of the values, at most 42; guessing is right once in so many
    n_tokens: Positive = 1_000_000  # train tokens; validation and test have a tenth each, all of whole sequences
    seed: int = 0  # of the source itself, not of the trial


@dataclass(frozen=True, kw_only=True)
class DataConfig(Strict):
    """Which text, cut how. The fingerprint of what it yields is part of the trial's identity."""

    corpus: str  # a name in stackwise_ray.data.corpora
    tokenizer: str = "bytes"  # bytes | words | bpe:<size> | a path or hub name of a transformers tokenizer
    path: str | None = None  # file, folder or glob of text or JSONL (text_files), or where to look first
    name: str | None = None  # configuration of a hub dataset
    text_field: str = "text"  # key that holds the text in JSONL and hub datasets
    seq_len: Positive = 256  # tokens in a training window, which is also the context of a prediction
    validation_tokens: Positive = 65_536  # one fixed set of windows for validation/loss; 65,536 costs seconds
    final_evaluation: Literal["full", "fixed"] | None = None  # None: full for decoders, fixed for encoders
    markov: MarkovSource | None = None  # only with corpus: markov
    associative_recall: AssociativeRecallSource | None = None  # only with corpus: associative_recall


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


@dataclass(frozen=True, kw_only=True)
class Noise(Strict):
    """Share of masked positions that each stack owns, heaviest at the input; stack k of K has r_k."""

    kind: Literal["point", "band", "cumulative"] = "point"  # r_k; between its neighbours' midpoints; r_K to r_k
    schedule: Literal["linear", "cosine", "exponential"] | tuple[Share, ...] = "linear"  # or the list r_1, …, r_K
    r_first: Share = 0.95  # r_1 of the leftmost stack; above it hardly a token is left to read
    r_last: Share = 0.15  # r_K of the rightmost stack, and of the only one


@dataclass(frozen=True, kw_only=True)
class Lora(Strict):
    """Low-rank adapters on every matrix of the trunk's blocks: W + (alpha / rank) B A (Hu et al., 2106.09685)."""

    rank: Positive = 8  # of a block's adapters: the mean over the trunk, whatever the pattern
    pattern: Literal["constant", "rising", "falling"] = "constant"  # from the input on: rank/2 to 3/2 rank, or back
    dual: Positive | None = None  # rank of a second, smaller set, put over the whole trunk at each growth; None: none
    alpha: Positive = 16  # twice the default rank; fixed while the rank varies, as in the paper


ADAPTED = ("lora", "qlora")
"""Trunks that keep their weights while adapters on them train."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Strict):
    """How the model is trained. The second part goes with regimes that grow the model or draw their noise."""

    budget: Budget
    regime: str = "classical"  # classical is a plan of one stage; other regimes are plans of several
    lr: Annotated[float, Field(gt=0)] = 3e-3  # peak learning rate; right for models of about 1M parameters
    schedule: Schedule = field(default_factory=Schedule)
    batch_tokens: Positive = 4096  # global tokens an optimizer step: seq_len × sequences, over all workers
    accumulation: Positive = 1  # micro-batches a step; the loss is the same, the memory smaller
    memory_bytes: Positive | None = None  # peak that a step must fit into by its own accumulation; None: no limit
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0  # largest global norm; None: off
    spectral_norm: bool = False  # keep the last projection of each residual branch that trains at a norm of at most 1
    residual_gain: Annotated[float, Field(ge=0.3, le=0.7)] | None = None  # γ of x + γ f(x), kept in what is saved
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # autocast type; master weights stay float32
    activation_checkpointing: bool = False  # recompute each block in the backward pass
    compile: bool = False  # torch.compile of a step's passes; its seconds are no part of training's
    mask_ratio: Share = 0.15  # masked-LM share of positions (encoders; 80/10/10)
    evaluations: Positive = 10  # validations spread evenly over the budget, the last one at its end
    report_seconds: NonNegative = 1.0  # least time between two reports of train/loss
    parallel: Literal["replicated", "sharded"] = "replicated"  # several workers: all hold the model, or shards (FSDP2)
    checkpoint_seconds: NonNegative = 20.0  # least time between two checkpoints; 0: one after every step
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where the trial was given one

    noise: Noise = field(default_factory=Noise)
    time: Literal["depth", "input"] = "depth"  # what tells the noise: the stack's number, or an input of the model
    blocks_per_stack: Positive = 1  # blocks that a stage adds; they divide the model's
    stage_split: Literal["uniform", "flop_proportional"] | tuple[Share, ...] = "uniform"  # or the shares in order
    trunk: Literal["frozen", "trainable", "lora", "qlora", "random_frozen"] = "frozen"  # what earlier stages trained
    lora: Lora = field(default_factory=Lora)  # with trunk lora, or qlora, which keeps the trunk's matrices in 4 bits
    embeddings: Literal["tied_frozen", "untied_frozen_head", "untied_all"] = "untied_frozen_head"  # after stage 1
    decoder_objective: Literal["noisy_context", "bidirectional"] = "noisy_context"  # what a decoder learns from masks
    consistency: NonNegative = 0.0  # weight of ‖h_k − emb(mask(x, r_{k+1}))‖² where tokens are newly revealed; 0: off
    entry: Literal["full", "nearest_r"] = "full"  # of masked inputs in evaluation: at the input, or where r_k fits
    cache: bool = False  # append: keep what the frozen prefix gives, on masks that stay the same every epoch
    cache_bytes: Positive | None = None  # largest such cache; None: what is free on the disk of the run's folder
    finish: Share = 0.0  # of the budget, for a last stage on all shares of masks: everything trains, or all adapters
    hybrid: Literal["finetune", "band"] = "finetune"  # all parameters on ever heavier masks, or stack by stack
    init_from: str | None = None  # hybrid: the checkpoint to go on from, a finished run's folder or a saved model
    charge_init: bool = True  # the budget pays for what that run cost as well: only so are arms compared at equal cost
    # hybrid without a checkpoint: of the budget, to train one first as classical does; all other shares are of the
    # rest. None: there is one. No share is a default: how much to spend on it is what a comparison asks.
    pretraining_share: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Strict):
    """The update rule; the learning rate and its schedule stand in `training`."""

    kind: str = "adamw"  # a name in stackwise_ray.optim
    betas: tuple[Share, Share] = (0.9, 0.95)  # 0.95: the usual second moment of language models
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: NonNegative = 0.1  # on matrices; vectors, norms and embeddings' positions are not decayed


@dataclass(frozen=True, kw_only=True)
class TrialConfig(Strict):
    """One trial. Its canonical hash, with the data fingerprint, is the `trial_id` (`config.identity`)."""

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    flags: tuple[str, ...] = ()  # names in stackwise_ray.flags, each a pure edit of this config
    seed: int = 0  # root seed of the named streams init, data order, noise
    schema_version: int = SCHEMA_VERSION

    @property
    def fills_masks(self) -> bool:
        """Whether the model predicts masked tokens from both sides: encoders, and bidirectional decoders."""
        return self.model.role == "encoder" or self.training.decoder_objective == "bidirectional"
