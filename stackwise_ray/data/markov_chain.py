"""An order-k Markov source whose entropy rate is known exactly: no honest model has a lower loss.

Used by the `markov` corpus (to generate) and by `PreparedData.oracle_loss` (to score). Pure numpy; knows nothing of
tokens or files.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stackwise_ray.core.errors import ConfigError

_MOST_ENTRIES = 2**24  # 128 MiB of transition probabilities
_DIRECT_CONTEXTS = 512  # up to here the stationary distribution is found by elimination (0.1 s), above by iteration
_MOST_STEPS = 100_000
_AGREEMENT = 1e-9
_RESIDUAL = 1e-12  # total-variation distance that one more step may move the stationary distribution


class MarkovChain:
    """A stationary source of symbols 0..n_symbols−1, each decided by the `order` symbols before it.

    A context is coded as a number in base `n_symbols`, its oldest symbol first. Every context's row of
    probabilities is drawn from a symmetric Dirichlet distribution.

    Args:
        order: Symbols of context, ≥ 1.
        n_symbols: Size of the alphabet, ≥ 2.
        concentration: Dirichlet parameter; small values make the source predictable.
        seed: Of the transition probabilities.

    Raises:
        ConfigError: The table would not fit, or so small a concentration left contexts that the source never
            reaches again, so that its entropy rate would depend on where it began.
    """

    def __init__(self, *, order: int, n_symbols: int, concentration: float, seed: int) -> None:
        self.order = order
        self.n_symbols = n_symbols
        self.n_contexts = n_symbols**order
        if self.n_contexts * n_symbols > _MOST_ENTRIES:
            raise ConfigError(
                f"{n_symbols} symbols with order {order} need {self.n_contexts * n_symbols:,} transition "
                f"probabilities, more than {_MOST_ENTRIES:,}; lower data.markov.order or data.markov.n_symbols",
                path="data.markov",
            )
        # RandomState's stream is frozen by numpy's policy (NEP 19); a Generator's may change with the version.
        random = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, 0])
        self.transitions = _dirichlet_rows(random, concentration, self.n_contexts, n_symbols)
        self._check_irreducible(concentration)

    @cached_property
    def stationary(self) -> NDArray[np.float64]:
        """Long-run share of every context, shape (n_contexts,)."""
        if self.n_contexts <= _DIRECT_CONTEXTS:
            share = self._eliminate()
            if not np.isfinite(share).all():
                raise _too_slow(self.n_contexts)
            return share
        # Two beginnings that end alike: one that stops because it hardly moves would keep its own.
        first, last = np.zeros(self.n_contexts), np.zeros(self.n_contexts)
        first[0] = last[-1] = 1.0
        share = self._iterate(first)
        if np.abs(share - self._iterate(last)).sum() > _AGREEMENT:
            raise _too_slow(self.n_contexts)
        return share

    @cached_property
    def entropy_rate(self) -> float:
        """Nats a symbol, Σ_c π(c) Σ_s −P(s|c) ln P(s|c). Source: Cover and Thomas, 2nd edition, theorem 4.2.4."""
        return float(-(self.stationary[:, None] * _x_log_x(self.transitions)).sum())

    def conditional(self, length: int) -> NDArray[np.float64]:
        """P(next symbol | the last `length` symbols), shape (n_symbols**length, n_symbols), 0 ≤ length ≤ order.

        With fewer symbols than the order this is the best prediction that there is: the unseen older symbols are
        summed out under the stationary distribution. Rows that never occur are NaN.
        """
        if length == self.order:
            return self.transitions
        joint = self.stationary[:, None] * self.transitions
        joint = joint.reshape(-1, self.n_symbols**length, self.n_symbols).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    def sample(self, n: int, *, stream: int, seed: int) -> NDArray[np.uint8]:
        """`n` symbols of one path that begins in the stationary distribution.

        Args:
            stream: Paths of different streams are independent (1 train, 2 validation, 3 test).
            seed: Of the source.
        """
        random = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, stream])
        context = int(np.searchsorted(np.cumsum(self.stationary), random.random_sample(), side="right"))
        context = min(context, self.n_contexts - 1)
        symbols = np.empty(n, dtype=np.uint8)
        first = [context // self.n_symbols ** (self.order - 1 - i) % self.n_symbols for i in range(self.order)]
        symbols[: self.order] = first[:n]
        ladders: dict[int, list[float]] = {}  # made on first visit: most contexts of a predictable source are rare
        keep = self.n_symbols ** (self.order - 1)
        for start in range(self.order, n, 65_536):
            draws = random.random_sample(min(65_536, n - start)).tolist()
            block = bytearray(len(draws))
            for i, draw in enumerate(draws):
                ladder = ladders.get(context)
                if ladder is None:
                    ladder = ladders[context] = _ladder(self.transitions[context])
                symbol = bisect_right(ladder, draw)
                block[i] = symbol
                context = context % keep * self.n_symbols + symbol
            symbols[start : start + len(draws)] = np.frombuffer(block, dtype=np.uint8)
        return symbols

    def losses(self, windows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Nats of each symbol but the first of each window, by the best prediction from the window's own past.

        The first predictions of a window see fewer symbols than the order, and so does the model that they are
        compared with.

        Args:
            windows: Symbols, shape (n_windows, length ≥ 2).

        Returns:
            Shape (n_windows, length − 1).
        """
        symbols = np.asarray(windows, dtype=np.int64)
        n_windows, length = symbols.shape
        nats = np.empty((n_windows, length - 1))
        for target in range(1, length):
            seen = min(target, self.order)
            if target <= self.order:
                table = self.conditional(seen)
            context = np.zeros(n_windows, dtype=np.int64)
            for place in range(target - seen, target):
                context = context * self.n_symbols + symbols[:, place]
            nats[:, target - 1] = -np.log(table[context, symbols[:, target]])
        return nats

    def _step(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        joint = share[:, None] * self.transitions
        return np.asarray(joint.reshape(self.n_symbols, -1, self.n_symbols).sum(axis=0).reshape(-1))

    def _iterate(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        for _ in range(_MOST_STEPS):
            # The lazy chain (half of the time it stays) has the same stationary distribution and no period.
            after = 0.5 * (share + self._step(share))
            moved = np.abs(after - share).sum()
            share = np.asarray(after / after.sum())
            if moved < _RESIDUAL:
                return share
        raise _too_slow(self.n_contexts)

    def _eliminate(self) -> NDArray[np.float64]:
        """The stationary distribution by elimination without subtractions, exact to rounding in every entry.

        Source: Grassmann, Taksar, Heyman 1985. A linear solve loses all digits where the source hardly ever leaves
        a part of its contexts.
        """
        step = self._matrix()
        share = np.zeros(self.n_contexts)
        share[0] = 1.0
        with np.errstate(all="ignore"):  # probabilities near 1e-308 overflow; the caller looks for that
            for last in range(self.n_contexts - 1, 0, -1):
                step[:last, last] /= step[last, :last].sum()
                step[:last, :last] += np.outer(step[:last, last], step[last, :last])
            for context in range(1, self.n_contexts):
                share[context] = share[:context] @ step[:context, context]
            return np.asarray(share / share.sum())

    def _matrix(self) -> NDArray[np.float64]:
        """Context-to-context probabilities, (n_contexts, n_contexts)."""
        contexts = np.arange(self.n_contexts)
        after = contexts[:, None] % self.n_symbols ** (self.order - 1) * self.n_symbols + np.arange(self.n_symbols)
        matrix = np.zeros((self.n_contexts, self.n_contexts))
        matrix[contexts[:, None], after] = self.transitions
        return matrix

    def _check_irreducible(self, concentration: float) -> None:
        if self.transitions.min() > 0:
            return  # every context is reached from every other in `order` steps
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        contexts, symbols = np.nonzero(self.transitions)
        after = contexts % self.n_symbols ** (self.order - 1) * self.n_symbols + symbols
        graph = csr_array((np.ones(len(after)), (contexts, after)), shape=(self.n_contexts, self.n_contexts))
        parts, _ = connected_components(graph, directed=True, connection="strong")
        if parts > 1:
            raise ConfigError(
                f"concentration = {concentration} gives some symbols a probability of exactly 0, so that "
                "some contexts are never reached again; raise data.markov.concentration (0.05 is safe for small "
                "alphabets)",
                path="data.markov.concentration",
            )


def _too_slow(n_contexts: int) -> ConfigError:
    return ConfigError(
        f"the source almost never leaves some of its {n_contexts:,} contexts, so a text of practical length would not "
        "show its entropy rate; raise data.markov.concentration",
        path="data.markov",
    )


def _dirichlet_rows(
    random: np.random.RandomState, concentration: float, rows: int, columns: int
) -> NDArray[np.float64]:
    """Symmetric Dirichlet rows by normalised gamma draws; a row that underflows to all zeros is an error."""
    draws = random.gamma(concentration, size=(rows, columns))
    totals = draws.sum(axis=1, keepdims=True)
    if not (totals > 0).all():
        raise ConfigError(
            f"concentration = {concentration} is too small: a row of probabilities underflows; raise it to 0.01 or "
            "more",
            path="data.markov.concentration",
        )
    return np.asarray(draws / totals)


def _ladder(row: NDArray[np.float64]) -> list[float]:
    """Cumulative probabilities that end in exactly 1 from the last possible symbol on, so that no draw passes it."""
    ladder = np.cumsum(row)
    ladder[int(np.flatnonzero(row)[-1]) :] = 1.0
    return [float(step) for step in ladder]


def _x_log_x(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
