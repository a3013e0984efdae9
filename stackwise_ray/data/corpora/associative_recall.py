"""Multi-query associative recall: key-value pairs, then keys whose values must be given again.

A sequence is ``k1 v1 … kP vP q1 a1 … qQ aQ``: P different keys with a value each, then Q ≤ P of those keys, each once
and in random order, each followed by its value, the answer. It holds nothing else to learn, so it isolates what a state
of constant size finds hard: to keep P pairs until they are asked for. Keys are letters, values digits and punctuation,
one byte and one token each; train, validation and test are independent draws of whole sequences.

What the loss measures: training and `validation/loss` cover every position, and most of them are random: a key costs at
least ln(keys left), a value ln(n_values), a query ln(pairs not asked for yet), an answer 0. That floor is exact and is
reported as `validation/oracle_loss`; `validation/answer_loss` and `validation/answer_accuracy` score the answers alone.

Chance: a model that sees only the key has ln(n_values) nats per answer and accuracy 1/n_values. One that knows which
values have been given and which of them are used up, but not whose they are, has the means of ln(P − j) and 1/(P − j)
over j = 0 … Q − 1 (with 8 of 8 pairs 1.33 nats and 0.34), and slightly less loss where values repeat. Both accuracies
are in `facts`; only what lies above the second is recall.

Source: Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", 2312.04927 (MQAR).
Different here: the queries follow without filler in between (there at distances drawn from a power law), the loss
covers all positions (there the answers), and an alphabet has at most 52 symbols.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stackwise_ray.config.trial import DataConfig, Positive, Strict
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import SPLITS, Corpus, Document, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEYS = string.ascii_letters
VALUES = string.digits + string.punctuation
_GENERATOR = 1  # raised when the same numbers would give another text
_BLOCK = 8192
"""Sequences drawn at once: a few megabytes whatever the corpus's size."""


@dataclass(frozen=True, kw_only=True)
class AssociativeRecallSource(Strict):
    """Generated sequences of key-value pairs and queries; they depend on nothing but these numbers."""

    n_pairs: Positive = 8  # pairs per sequence, all keys different: what a state has to hold
    n_queries: Positive = 8  # keys asked for again, each once: at most n_pairs
    n_keys: Positive = 32  # alphabet of the keys: n_pairs to 52
    n_values: Annotated[int, Field(ge=2)] = 32  # alphabet of the values, at most 42; guessing is right once in so many
    n_tokens: Positive = 1_000_000  # train tokens; validation and test have a tenth each, all of whole sequences
    seed: int = 0  # of the source itself, not of the trial

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence."""
        return 2 * (self.n_pairs + self.n_queries)


@dataclass(frozen=True, kw_only=True)
class AssociativeRecallData(DataConfig):
    """The options of generated key-value pairs and queries."""

    associative_recall: AssociativeRecallSource


@CORPORA.register("associative_recall")
class AssociativeRecallCorpus(Corpus):
    """Independent sequences, one after the other, one document per split."""

    options = AssociativeRecallData
    word_rule = "symbols"
    separated = False
    symbol_tokens = True

    def __init__(self, config: AssociativeRecallData) -> None:
        super().__init__(config)
        self.source = config.associative_recall
        self.sequence_length = self.source.sequence_length

    @classmethod
    def check(cls, config: DataConfig) -> None:
        super().check(config)
        assert isinstance(config, AssociativeRecallData)
        source, length, seq_len = config.associative_recall, config.associative_recall.sequence_length, config.seq_len
        bounds = {
            "n_pairs": (source.n_pairs, 1, len(KEYS), "the keys of a sequence are different letters"),
            "n_queries": (source.n_queries, 1, source.n_pairs, "a sequence asks for each pair at most once"),
            "n_keys": (source.n_keys, source.n_pairs, len(KEYS), "a sequence needs n_pairs different letters"),
            "n_values": (source.n_values, 2, len(VALUES), "values are digits and punctuation"),
        }
        for name, (value, low, high, reason) in bounds.items():
            if not low <= value <= high:
                raise ConfigError(
                    f"= {value}: {reason}; choose {low} to {high}", path=f"data.associative_recall.{name}"
                )
        if source.n_tokens // 10 // length < 2:
            raise ConfigError(
                f"= {source.n_tokens} is too few: validation and test get a tenth each, and each needs two "
                f"sequences of {length} tokens; choose {20 * length} or more",
                path="data.associative_recall.n_tokens",
            )
        if seq_len % length:
            raise ConfigError(
                f"= {seq_len} is not a multiple of a sequence's 2·(n_pairs + n_queries) = {length} tokens, so a "
                f"window could have questions without their pairs; choose {max(1, seq_len // length) * length}",
                path="data.seq_len",
            )

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "associative_recall", "generator": _GENERATOR, **asdict(self.source)}

    def signature(self) -> Mapping[str, Any]:
        return {}

    def documents(self) -> Iterator[Document]:
        for stream, split in enumerate(SPLITS, start=1):
            text = b"".join(block.tobytes() for block in self._blocks(self.n_sequences_of(split), stream))
            yield Document(split, text.decode("ascii"), f"associative_recall {split}")

    def facts(self) -> Mapping[str, Any]:
        import numpy as np

        source = self.source
        left = source.n_pairs - np.arange(source.n_queries)
        return {
            "entropy_rate_nats": self.entropy_rate(),
            "sequence_length": self.sequence_length,
            "chance_accuracy": 1 / source.n_values,
            "chance_accuracy_of_the_values_left": float((1 / left).mean()),
        }

    def size_bytes(self) -> int:
        return sum(self.n_sequences_of(split) for split in SPLITS) * self.sequence_length

    def n_sequences_of(self, split: Split) -> int:
        """Whole sequences of a split."""
        return self.source.n_tokens // (1 if split == "train" else 10) // self.sequence_length

    def entropy_rate(self) -> float:
        return float(self._nats.mean())

    def oracle_losses(self, windows: NDArray[np.integer], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """As in `Corpus`; every window must begin with a sequence: elsewhere the floor depends on what is cut off.

        Raises:
            ValueError: One begins inside a sequence.
        """
        if (offsets % self.sequence_length).any():
            raise ValueError(f"windows must begin at multiples of {self.sequence_length}, where sequences do")
        return self._nats[self._places(offsets, windows.shape[1] - 1)]

    def answers(self, offsets: NDArray[np.int64], seq_len: int) -> NDArray[np.bool_]:
        import numpy as np

        places = self._places(offsets, seq_len)
        return np.asarray((places >= 2 * self.source.n_pairs) & (places % 2 == 1))

    def _places(self, offsets: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
        """Place of each target in its sequence, shape (n_windows, seq_len)."""
        import numpy as np

        return np.asarray((offsets[:, None] + 1 + np.arange(seq_len)) % self.sequence_length)

    @property
    def _nats(self) -> NDArray[np.float64]:
        """What the best prediction leaves at each place of a sequence, shape (sequence_length,)."""
        import numpy as np

        source, nats = self.source, np.zeros(self.sequence_length)
        pairs, queries = nats[: 2 * source.n_pairs], nats[2 * source.n_pairs :]
        pairs[::2] = np.log(source.n_keys - np.arange(source.n_pairs))
        pairs[1::2] = np.log(source.n_values)
        queries[::2] = np.log(source.n_pairs - np.arange(source.n_queries))
        return nats

    def _blocks(self, n_sequences: int, stream: int) -> Iterator[NDArray[np.uint8]]:
        """Sequences as ASCII codes, shape (up to _BLOCK, sequence_length) each."""
        import numpy as np

        source = self.source
        keys_of, values_of = (np.frombuffer(text.encode("ascii"), dtype=np.uint8) for text in (KEYS, VALUES))
        # RandomState's streams are frozen: the same numbers with every version of numpy.
        random = np.random.RandomState([source.seed & 0xFFFFFFFF, source.seed >> 32 & 0xFFFFFFFF, stream])
        for start in range(0, n_sequences, _BLOCK):
            n = min(_BLOCK, n_sequences - start)
            keys = _shuffled(random, n, source.n_keys)[:, : source.n_pairs]
            values = (random.random_sample((n, source.n_pairs)) * source.n_values).astype(np.int64)
            asked = _shuffled(random, n, source.n_pairs)[:, : source.n_queries]
            block = np.empty((n, self.sequence_length), dtype=np.uint8)
            block[:, ::2] = keys_of[np.concatenate([keys, np.take_along_axis(keys, asked, axis=1)], axis=1)]
            block[:, 1::2] = values_of[np.concatenate([values, np.take_along_axis(values, asked, axis=1)], axis=1)]
            yield block


def _shuffled(random: np.random.RandomState, rows: int, n: int) -> NDArray[np.int64]:
    """A random order of 0 … n − 1 in each row."""
    import numpy as np

    return np.argsort(random.random_sample((rows, n)), axis=1, kind="stable")
