"""What every corpus promises: stable documents in disjoint splits, an identity, tokens that are the documents."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stackwise_ray.config.trial import DATA, DataConfig
from stackwise_ray.config.trial.editing import plain_data
from stackwise_ray.config.trial.paths import annotations_of, components_in
from stackwise_ray.config.trial.registered import field_names
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.contracts import NotAtHand, require
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA, gather, prepare
from stackwise_ray.data.corpus import SPLITS, Corpus, Document

SEQ_LEN = 32


def its_documents_are_stable(name: str) -> None:
    """Documents come in the same order every time, each has a name, and no two splits share one."""
    with source(name) as corpus:
        first, again = list(corpus.documents()), list(type(corpus)(corpus.config).documents())
        require(first == again == list(corpus.documents()), "its documents are others, or in another order, next time")
        texts = {split: {document.text for document in first if document.split == split} for split in SPLITS}
        for split in SPLITS:
            require(texts[split], f"it has no document in the split {split}")
        for one, other in itertools.combinations(SPLITS, 2):
            require(texts[one].isdisjoint(texts[other]), f"{one} and {other} share a document")
        require(all(document.name for document in first), "a document has no name")


def its_identity_is_stable(name: str) -> None:
    """Recipe and signature are stable JSON, and the recipe names the corpus and no place on this machine."""
    with source(name) as corpus:
        again = type(corpus)(corpus.config)
        for what, one, other in (
            ("recipe", corpus.recipe(), again.recipe()),
            ("signature", corpus.signature(), again.signature()),
        ):
            require(json.dumps(one) == json.dumps(other), f"its {what} is another one next time")
        recipe = corpus.recipe()
        require(recipe.get("corpus") == name, f"its recipe has corpus = {recipe.get('corpus')!r}, not '{name}'")
        places = [getattr(corpus.config, "path", None), str(Path.home())]
        held = [place for place in places if place and place in json.dumps(recipe)]
        require(not held, f"its recipe holds a place of this machine: {', '.join(held)}")


def what_changes_its_text_changes_its_identity(name: str) -> None:
    """An option whose value shows in the documents shows in recipe or signature too.

    Else prepared text of one value would be taken for that of another, and arms that differ in it would train alike.
    """
    with source(name) as corpus:
        identity = _identity(corpus)
        for option, value in _own_numbers(corpus.config):
            for other in (not value,) if isinstance(value, bool) else (value * 2, value + 1, value - 1, value / 2):
                changed = _with(corpus, option, type(value)(other))
                if changed is None or changed.config == corpus.config:
                    continue
                if _identity(changed) == identity:
                    said = f"data.{option} = {value} and {type(value)(other)} give different documents"
                    alike = _beginning(changed) == _beginning(corpus)
                    require(alike, f"{said}, and neither recipe() nor signature() has the option")
                break


def its_tokens_are_its_documents(name: str) -> None:
    """Prepared bytes are the documents, and they come back from the cache under the same fingerprint."""
    with source(name) as corpus, tempfile.TemporaryDirectory() as folder:
        data = prepare(corpus.config, cache_directory=Path(folder))
        ends = corpus.separated
        for split in SPLITS:
            documents = [document.text for document in corpus.documents() if document.split == split]
            part = data.splits[split]
            n_bytes = sum(len(text.encode()) for text in documents)
            require(part.n_documents == len(documents), f"{split}: {part.n_documents} of {len(documents)} documents")
            require(part.n_bytes == n_bytes, f"{split}: {part.n_bytes} bytes are counted, and it has {n_bytes}")
            require(part.n_tokens == n_bytes + ends * len(documents), f"{split}: {part.n_tokens} tokens are too many")
            require(part.n_words > 0, f"{split}: it has no words by its rule '{corpus.word_rule}'")
            text = bytes(part.tokens[part.tokens < 256].astype(np.uint8)).decode()
            require(text == "".join(documents), f"{split}: the tokens read back are another text")
        again = prepare(corpus.config, cache_directory=Path(folder), verify=True)
        kept = (again.fingerprint, again.rebuilt) == (data.fingerprint, False)
        require(kept, "it does not come back from the cache as it was written")
        inputs, targets = gather(data.splits["train"].tokens, [0, 5], corpus.config.seq_len)
        require(np.array_equal(inputs[:, 1:], targets[:, :-1]), "targets are not the inputs' next tokens")
        losses = data.oracle_loss([0, SEQ_LEN])
        known = (losses is None) == (data.entropy_rate is None)
        require(known, "an exact loss needs an entropy rate, and the other way round")
        require(losses is None or (losses > 0).all(), "its exact loss is not positive")


def _beginning(corpus: Corpus) -> list[Document]:
    return list(itertools.islice(corpus.documents(), 8))


def _identity(corpus: Corpus) -> str:
    return json.dumps([corpus.recipe(), corpus.signature()])


def _own_numbers(config: Any, before: str = "") -> Iterator[tuple[str, float | bool]]:
    """The options of a corpus that are numbers or switches, by dotted path; those of every corpus are left out."""
    common = set() if before else set(field_names(DataConfig))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in common:
            continue
        if dataclasses.is_dataclass(value):
            yield from _own_numbers(value, f"{before}{field.name}.")
        elif isinstance(value, bool | int | float):
            yield f"{before}{field.name}", value


def _with(corpus: Corpus, option: str, value: float | bool) -> Corpus | None:
    """The corpus with another value of an option; None where it does not take that value."""
    changed = plain_data(corpus.config)
    *above, last = option.split(".")
    within = changed
    for name in above:
        within = within[name]
    within[last] = value
    try:
        return type(corpus)(validate(type(corpus.config), changed, source=None))
    except ConfigError:
        return None


@contextmanager
def source(name: str) -> Iterator[Corpus]:
    """The corpus with its default options, or on text files that are made here where it needs a path.

    Raises:
        NotAtHand: What it reads is not on this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = (json.dumps({"text": f"Document {i} tells of {i * i} things.\n" * 4}) + "\n" for i in range(400))
        (Path(folder) / "documents.jsonl").write_text("".join(rows))
        reasons = []
        for path in (None, folder):
            try:
                corpus: Corpus = CORPORA.get(name)(config_of(name, path))
                next(iter(corpus.documents()))
            except ConfigError as error:
                reasons.append(str(error))
                continue
            yield corpus
            return
        require("fetch it with" in reasons[0], f"a missing source gives no way out: {reasons[0]}")
        raise NotAtHand(reasons[0])


def config_of(name: str, path: str | None) -> DataConfig:
    """The corpus with its default options."""
    options = DATA.of(name) or DataConfig
    values: dict[str, Any] = {"corpus": name, "seq_len": SEQ_LEN}
    for option, annotation in annotations_of(options).items():
        if option == "path" and path is not None:
            values[option] = path
        elif option not in field_names(DataConfig) and (held := components_in(annotation)):
            (kind,) = held
            assert isinstance(kind, type), "an option is a dataclass"
            values[option] = kind()
    config: DataConfig = options(**values)
    return config


CHECKS = (
    its_documents_are_stable,
    its_identity_is_stable,
    what_changes_its_text_changes_its_identity,
    its_tokens_are_its_documents,
)
