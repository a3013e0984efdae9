"""What a model family states about itself: its fields, its transformers config and its stack view.

A family is a subclass of `ModelFamily` in `stackwise_ray.models.families`, registered under its transformers
`model_type`. `stackwise_ray.models.build` builds models from it, and the contract tests pick it up by themselves.
Nothing here imports torch or transformers at module level, so that a config is checked without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import near_divisors
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from stackwise_ray.models.stack import StackView

SPECIAL_TOKENS = ("bos", "eos", "pad", "cls", "sep", "mask", "unk")
"""Names under which `build_model` takes special-token ids; transformers keeps each as `<name>_token_id`."""


MatrixShape = tuple[int, int]
"""(inputs, outputs) of a matrix."""


@dataclass(frozen=True, kw_only=True)
class Projections:
    """The matrices of a block, which are also those that low-rank adapters go on.

    Attributes:
        entry: Those that read the block's input, as it is or through the block's first norm.
        inner: All others.
        unadapted: Those that get no adapter (a router, whose few outputs a low rank would not make fewer).
    """

    entry: tuple[MatrixShape, ...]
    inner: tuple[MatrixShape, ...]
    unadapted: tuple[MatrixShape, ...] = ()

    @property
    def adapted(self) -> tuple[MatrixShape, ...]:
        """All that get adapters."""
        return self.entry + self.inner


class ModelFamily(ABC):
    """One architecture: which `ModelConfig` fields it takes, and how they become a transformers model.

    A subclass sets the class attributes and implements `transformers_config` and `stack_view`.
    """

    name: ClassVar[str]
    """The registered name, equal to the transformers `model_type`."""
    roles: ClassVar[tuple[str, ...]]
    """What it can be trained as: "encoder" (masked LM), "decoder" (next token)."""
    published_vocab_size: ClassVar[int | None]
    """Vocabulary of the family's first published weights; None: never published."""
    ties_embeddings: ClassVar[bool]
    """Whether the published models tie the head to the token embedding."""
    has_position_table: ClassVar[bool] = False
    """Whether positions are learned rows, which bounds `seq_len` by `max_positions`."""
    takes_n_kv_heads: ClassVar[bool] = False
    takes_mixer: ClassVar[bool] = False
    """Whether the mixers of tokens and of channels can be chosen."""
    takes_n_heads: ClassVar[bool] = True
    rotary: ClassVar[bool] = False
    """Whether heads carry rotary positions, which need an even width."""
    can_be_two_sided: ClassVar[bool] = False
    """Whether the attention of its decoders can be switched to both sides (transformers' `config.is_causal`)."""
    blocks_end_in_norm: ClassVar[bool] = False
    """Whether a block ends in a norm, which undoes the scale of its last projection (post-norm)."""
    dropout_fields: ClassVar[tuple[str, ...]] = ()
    """Names of all dropout rates in the transformers config; empty: the family has none."""
    default_special_ids: ClassVar[Mapping[str, int]] = {}
    """Special-token ids of the published vocabulary, as its transformers config defaults to them."""

    @abstractmethod
    def transformers_config(
        self, model: ModelConfig, *, vocab_size: int, seq_len: int, **settings: Any
    ) -> PretrainedConfig:
        """The transformers config of a checked `model`.

        Args:
            settings: What `build` decides in the same way for all families (ties, cache, dropout, special-token
                ids), to be handed to the config's constructor as it is.
        """

    @abstractmethod
    def stack_view(self, model: Any) -> StackView:
        """Embeddings, blocks, final norm and head of a model of this family (encoder or decoder)."""

    @abstractmethod
    def projections(self, model: ModelConfig) -> Projections:
        """The matrices of one block."""

    def block_products(self, model: ModelConfig) -> int:
        """Multiplications of one block with its weight matrices, per token."""
        shapes = self.projections(model)
        return sum(inputs * outputs for inputs, outputs in shapes.adapted + shapes.unadapted)

    def mixing_flops(self, model: ModelConfig, seq_len: int) -> tuple[float, float]:
        """(forward, backward) FLOPs per token of a block's mixing of positions; attention over all of them here."""
        return 4.0 * seq_len * model.d_model, 8.0 * seq_len * model.d_model

    def head_products(self, model: ModelConfig, vocab_size: int) -> int:
        """Multiplications of the head with its weight matrices, per token."""
        return model.d_model * vocab_size

    def enters_bare(self, number: int) -> bool:
        """Whether the projections of block `number` take its input as it is; else a norm comes first."""
        return False

    def heads(self, model: ModelConfig) -> int:
        """The number of attention heads, which a family that `takes_n_heads` cannot do without."""
        if model.n_heads is None:
            raise ConfigError(
                f"is absent: the family {self.name} needs a number of attention heads; add it", path="model.n_heads"
            )
        return model.n_heads

    def n_positions(self, model: ModelConfig, seq_len: int) -> int:
        """Positions that the model is built for: rows of the table where there is one."""
        return model.max_positions if model.max_positions is not None else seq_len

    def width_of_channel_mixer(self, config: PretrainedConfig) -> int | None:
        """`d_ff` of a transformers config that was read from somewhere."""
        width: int | None = getattr(config, "intermediate_size", None)
        return width

    def check(self, model: ModelConfig, *, seq_len: int) -> None:
        """Refuses fields that this family lacks, cannot do without, or that contradict each other.

        Raises:
            ConfigError: Names the field, its value and what to choose instead.
        """
        if model.role not in self.roles:
            raise ConfigError(
                f"= {model.role}, but the family {self.name} can only be {' or '.join(self.roles)}; "
                f"write {self.roles[0]}, or choose another family",
                path="model.role",
            )
        self._check_heads(model)
        self._forbid(model)
        if model.max_positions is not None and seq_len > model.max_positions:
            raise ConfigError(
                f"= {seq_len} is more than the {model.max_positions} learned positions of {self.name}"
                f" (model.max_positions); choose data.seq_len <= {model.max_positions} or raise model.max_positions",
                path="data.seq_len",
            )

    def _check_heads(self, model: ModelConfig) -> None:
        if not self.takes_n_heads:
            if model.n_heads is not None:
                raise ConfigError(
                    f"= {model.n_heads}, but the family {self.name} has no such option; leave it out, and "
                    "set the heads of its mixer by model.mixer.n_heads",
                    path="model.n_heads",
                )
            return
        n_heads = self.heads(model)
        width = 2 if self.rotary else 1
        if model.d_model % (n_heads * width):
            reason = (
                f"= {n_heads} gives rotary heads of odd width at d_model = {model.d_model}"
                if model.d_model % n_heads == 0
                else f"= {n_heads} does not divide d_model = {model.d_model}"
            )
            raise ConfigError(
                f"{reason}; choose {near_divisors(model.d_model // width, n_heads)}", path="model.n_heads"
            )
        if self.takes_n_kv_heads and model.n_kv_heads is not None and n_heads % model.n_kv_heads:
            raise ConfigError(
                f"= {model.n_kv_heads} does not divide n_heads = {n_heads}; choose "
                f"{near_divisors(n_heads, model.n_kv_heads)}",
                path="model.n_kv_heads",
            )

    def _forbid(self, model: ModelConfig) -> None:
        taken = {
            "n_kv_heads": (model.n_kv_heads, "takes_n_kv_heads"),
            "mixer": (model.mixer and model.mixer.kind, "takes_mixer"),
            "channel_mixer": (model.channel_mixer and model.channel_mixer.kind, "takes_mixer"),
            "max_positions": (model.max_positions, "has_position_table"),
        }
        for field, (value, fact) in taken.items():
            if value is not None and not getattr(self, fact):
                fitting = " or ".join(name for name, family in FAMILIES.items() if getattr(family, fact))
                raise ConfigError(
                    f"= {value}, but the family {self.name} has no such option; leave it out, or choose "
                    f"the family {fitting}",
                    path=f"model.{field}",
                )
        if model.dropout > 0 and not self.dropout_fields:
            raise ConfigError(
                f"= {model.dropout:g}, but the family {self.name} has no dropout; write model.dropout: 0",
                path="model.dropout",
            )


def special_token_settings(
    family: ModelFamily, *, vocab_size: int, special_ids: Mapping[str, int] | None
) -> dict[str, int | None]:
    """`<name>_token_id` of every special token, inside the vocabulary.

    Args:
        special_ids: The tokenizer's, by `SPECIAL_TOKENS`; tokens that it lacks have no id. None: no tokenizer is
            known; then an id of the published vocabulary stays where it fits and becomes the last id where it does
            not, and there is no padding (a padding row would get no gradient).

    Raises:
        ConfigError: An id is outside the vocabulary, or a name is unknown.
    """
    absent: dict[str, int | None] = dict.fromkeys((*family.default_special_ids, "pad"))
    if special_ids is None:
        found = {name: min(id_, vocab_size - 1) for name, id_ in family.default_special_ids.items() if name != "pad"}
        return {f"{name}_token_id": id_ for name, id_ in (absent | found).items()}
    for name, id_ in special_ids.items():
        if name not in SPECIAL_TOKENS:
            raise ConfigError(f"special token '{name}' is unknown; the names are {', '.join(SPECIAL_TOKENS)}")
        if not 0 <= id_ < vocab_size:
            raise ConfigError(
                f"= {vocab_size} is too small for the {name} token {id_}; give at least {id_ + 1}",
                path="model.vocab_size",
            )
    return {f"{name}_token_id": id_ for name, id_ in (absent | dict(special_ids)).items()}


FAMILIES: Registry[ModelFamily] = registries.FAMILIES
"""Families by name; listing the names imports none of them."""
