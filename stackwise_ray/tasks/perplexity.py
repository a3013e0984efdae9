"""Perplexity of a benchmark's whole test split: the kind of task that WikiText and the Penn Treebank are.

A task names a corpus of `data.corpora`; its text is read in the model's own tokens and scored as a run's final
evaluation scores its own data. Perplexities per word and per byte divide the same loss by counts of the text, so that
models with different tokenizers can be compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from stackwise_ray.config.trial import DataConfig, data_config
from stackwise_ray.core import cache_place
from stackwise_ray.core.atomic import atomic_write_json
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.plugins import owner
from stackwise_ray.data import CORPORA, PreparedData, cache, prepare
from stackwise_ray.data.corpus import Corpus, Split
from stackwise_ray.data.places import Benchmark
from stackwise_ray.data.preparing import words_of
from stackwise_ray.tasks.task import (
    Estimate,
    Reference,
    Task,
    TaskData,
    TaskFacts,
    TaskScores,
    TaskSource,
    Whereabouts,
)

if TYPE_CHECKING:
    from stackwise_ray.training.scoring import TrainedModel

SPLIT: Split = "test"
_UNITS = ("token", "word", "byte")
_FLOOR = "floor.json"


class Perplexity(Task):
    """Exact loss of every token but the first, strided windows, one pass over the test split.

    Attributes:
        corpus: Name of the corpus whose test split is scored.
    """

    corpus: ClassVar[str]
    by_item = False

    def check(self, trained: TrainedModel, limit: int | None) -> None:
        super().check(trained, limit)
        if trained.trial.fills_masks:
            raise ConfigError(
                f"= {self.facts.name}: the model at {trained.source} fills in masks and does not predict a text from "
                "left to right, so it has no perplexity; give a decoder that predicts next tokens, or leave --tasks "
                "out: the run's own evaluation reports its losses on masked tokens",
                path="--tasks",
            )

    def where(self, path: str | None) -> Whereabouts:
        try:
            signature = self._corpus(path).signature()
        except ConfigError as error:
            return Whereabouts(place=None, missing=str(error))
        if "files" in signature:
            files = signature["files"]
            return Whereabouts(place=str(files[0][0]).rpartition("/")[0] if len(files) > 1 else str(files[0][0]))
        folder, hub = self.facts.source.folder, self.facts.source.hub
        return Whereabouts(
            place=None,
            missing=f"not in data.path or $STACKWISE_DATA/{folder}; --tasks {self.facts.name} fetches {hub} from the "
            "hub, or finds it in the hub's cache",
        )

    def prepare(self, trained: TrainedModel, path: str | None, progress: ProgressCallback | None) -> TaskData:
        config = self._config(path, tokenizer=trained.tokenizer, seq_len=trained.trial.data.seq_len)
        data = prepare(config, progress=progress)
        return TaskData(content=data, fingerprint=data.fingerprint)

    def score(
        self, trained: TrainedModel, data: TaskData, limit: int | None, progress: ProgressCallback | None
    ) -> TaskScores:
        from stackwise_ray.training.scoring import score_split

        prepared = cast("PreparedData", data.content)
        found = score_split(trained.evaluator(prepared), SPLIT, progress)
        name = self.facts.name
        values = {f"{name}/loss": found[f"{SPLIT}/loss"]}
        for unit in _UNITS:
            if f"{SPLIT}/perplexity_{unit}" in found:  # absent where it is beyond a float
                values[f"{name}/perplexity_{unit}"] = found[f"{SPLIT}/perplexity_{unit}"]
        counts = {count: found[f"{SPLIT}/{count}"] for count in ("tokens", "words", "bytes", "min_context")}
        return TaskScores(
            metrics={path: Estimate(value=value) for path, value in values.items()},
            floors=self._floors(prepared, progress),
            n_items=prepared.splits[SPLIT].n_words,
            counts=counts,
        )

    def _floors(self, data: PreparedData, progress: ProgressCallback | None) -> dict[str, float]:
        corpus = self._corpus(getattr(data.config, "path", None))
        nll = kept_unigram_nll(corpus, progress)
        counts, name = data.splits[SPLIT], self.facts.name
        return {
            f"{name}/perplexity_word": math.exp(nll / counts.n_words),
            f"{name}/perplexity_byte": math.exp(nll / counts.n_bytes),
        }

    def _config(self, path: str | None, *, tokenizer: str = "bytes", seq_len: int = 128) -> DataConfig:
        return data_config(corpus=self.corpus, path=path, tokenizer=tokenizer, seq_len=seq_len)

    def _corpus(self, path: str | None) -> Corpus:
        corpus: Corpus = CORPORA.get(self.corpus)(self._config(path))
        return corpus


def perplexity_facts(
    *,
    name: str,
    title: str,
    paper: str,
    licence: str,
    benchmark: Benchmark,
    words: Mapping[Split, int],
    references: Iterable[Reference] = (),
) -> TaskFacts:
    """What every perplexity of a benchmark states, with what is its own.

    Args:
        benchmark: Where its corpus looks for it.
        words: Its published counts.
    """
    return TaskFacts(
        name=name,
        title=title,
        kind="perplexity",
        source=TaskSource(
            paper=paper,
            dataset=f"{title.removesuffix(' perplexity')}, official splits",
            licence=licence,
            folder=benchmark.folder,
            hub=f"{benchmark.hub_path}, {benchmark.hub_name}",
        ),
        metrics=perplexity_metrics(name),
        split=SPLIT,
        n_items=words[SPLIT],
        item="words with one <eos> per line",
        floor="unigram frequencies of the train split's words, add-one, on the same words",
        context="nothing is cut: windows overlap by half, and every token but the first is scored once",
        references=tuple(references),
    )


def perplexity_metrics(name: str) -> tuple[Metric, ...]:
    """The metrics of a perplexity task."""
    by = f"evaluate --tasks {name}"
    loss = Metric(
        path=f"{name}/loss", unit="nats per token", direction="minimize", label=f"{name} loss", reported_by=by
    )
    return (
        loss,
        *(
            Metric(
                path=f"{name}/perplexity_{unit}",
                unit=f"per {unit}",
                direction="minimize",
                label=f"{name} perplexity",
                reported_by=by,
            )
            for unit in _UNITS
        ),
    )


def kept_unigram_nll(corpus: Corpus, progress: ProgressCallback | None = None) -> float:
    """`unigram_nll`, counted once per text and kept beside the prepared data."""
    plugin = owner("corpora", corpus.config.corpus)
    text = {"recipe": corpus.recipe(), "signature": corpus.signature(), "words": corpus.word_rule}
    key = cache.key_of({**text, **({} if plugin is None else {"plugin": plugin.sha256})})
    place, _ = cache.entry(
        cache_place.cache_directory() / "floors",
        key,
        intact=lambda folder: _read_floor(folder) is not None,
        build=lambda folder: atomic_write_json(folder / _FLOOR, {"nll": unigram_nll(corpus, progress)}),
    )
    found = _read_floor(place)
    assert found is not None  # `entry` gives an intact one
    return found


def _read_floor(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / _FLOOR).read_text(encoding="utf-8"))["nll"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unigram_nll(corpus: Corpus, progress: ProgressCallback | None = None) -> float:
    """Nats of the test split's words under the frequencies of the train split's, each count plus one.

    Words that the train split lacks share one entry of count zero plus one; the benchmarks have none.
    """
    train: Counter[str] = Counter()
    test: Counter[str] = Counter()
    done, total = 0, corpus.size_bytes()
    for document in corpus.documents():
        if document.split == "train":
            train.update(words_of(document.text, corpus.word_rule))
        elif document.split == SPLIT:
            test.update(words_of(document.text, corpus.word_rule))
        done += len(document.text)
        if progress is not None:
            progress("counting words for the floor", done, total)
    log_mass = math.log(train.total() + len(train) + 1)
    return math.fsum(count * (log_mass - math.log(train[word] + 1)) for word, count in test.items())
