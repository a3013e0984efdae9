"""Generated text with a known entropy rate: no honest model has a lower loss.

The symbols are printable characters, one byte each, so that with the `bytes` tokenizer one token is one symbol.
Train, validation and test are independent paths of the same source.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stackwise_ray.config.trial import DataConfig, Positive, Strict
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import SPLITS, Corpus, Document, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stackwise_ray.data.markov_chain import MarkovChain

ALPHABET = string.ascii_letters + string.digits + string.punctuation
_GENERATOR = 1  # raised when the same numbers would give another text


@dataclass(frozen=True, kw_only=True)
class MarkovSource(Strict):
    """A generated source with a known entropy rate; it depends on nothing but these numbers."""

    order: Positive = 2  # symbols of context that decide the next
    n_symbols: Positive = 16  # alphabet size; order 2 gives 256 contexts, learnable in seconds
    concentration: Annotated[float, Field(gt=0)] = 0.3  # Dirichlet parameter of each row; smaller: more predictable
    n_tokens: Positive = 1_000_000  # train tokens; validation and test have a tenth each
    seed: int = 0  # of the source itself, not of the trial


@dataclass(frozen=True, kw_only=True)
class MarkovData(DataConfig):
    """The options of generated text with a known entropy rate."""

    markov: MarkovSource


@CORPORA.register("markov")
class MarkovCorpus(Corpus):
    """One path of an order-k Markov source per split."""

    options = MarkovData
    word_rule = "symbols"
    separated = False
    symbol_tokens = True

    def __init__(self, config: MarkovData) -> None:
        super().__init__(config)
        self.source = config.markov

    @classmethod
    def check(cls, config: DataConfig) -> None:
        super().check(config)
        assert isinstance(config, MarkovData)
        source = config.markov
        if not 2 <= source.n_symbols <= len(ALPHABET):
            raise ConfigError(
                f"= {source.n_symbols}: the symbols are printable characters; choose 2 to {len(ALPHABET)}",
                path="data.markov.n_symbols",
            )
        if source.n_tokens < 10:
            raise ConfigError(
                f"= {source.n_tokens} is too few: validation and test get a tenth each; choose 10 or more",
                path="data.markov.n_tokens",
            )

    @cached_property
    def chain(self) -> MarkovChain:
        """The source itself, with its stationary distribution and entropy rate."""
        from stackwise_ray.data.markov_chain import MarkovChain

        source = self.source
        return MarkovChain(
            order=source.order, n_symbols=source.n_symbols, concentration=source.concentration, seed=source.seed
        )

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "markov", "generator": _GENERATOR, **asdict(self.source)}

    def signature(self) -> Mapping[str, Any]:
        return {}

    def documents(self) -> Iterator[Document]:
        for stream, split in enumerate(SPLITS, start=1):
            symbols = self.chain.sample(self.n_symbols_of(split), stream=stream, seed=self.source.seed)
            yield Document(split, _codes()[symbols].tobytes().decode("ascii"), f"markov {split}")

    def facts(self) -> Mapping[str, Any]:
        return {"entropy_rate_nats": self.chain.entropy_rate}

    def entropy_rate(self) -> float:
        return self.chain.entropy_rate

    def oracle_losses(self, windows: NDArray[np.integer], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.chain.losses(symbols_of(windows))

    def size_bytes(self) -> int:
        return sum(self.n_symbols_of(split) for split in SPLITS)

    def n_symbols_of(self, split: Split) -> int:
        """Length of a split's path."""
        return self.source.n_tokens if split == "train" else self.source.n_tokens // 10


def symbols_of(token_ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """Symbols of byte tokens; a token outside the alphabet is an error, since the source never emits one."""
    import numpy as np

    table = np.full(1 << 16, -1, dtype=np.int64)
    table[_codes()] = np.arange(len(ALPHABET))
    symbols = table[np.asarray(token_ids)]
    if (symbols < 0).any():
        raise ValueError("the tokens are not those of a markov source with the bytes tokenizer")
    return symbols


def _codes() -> NDArray[np.uint8]:
    """The byte of each symbol."""
    import numpy as np

    return np.frombuffer(ALPHABET.encode("ascii"), dtype=np.uint8)
