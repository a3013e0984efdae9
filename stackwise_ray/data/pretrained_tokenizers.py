"""Tokenizers of transformers, from a folder or the hub.

A folder may hold what `save_pretrained` writes, or the bare files that the first releases of GPT-2 (byte-level BPE),
BERT (WordPiece) and Llama or Mistral (a SentencePiece BPE model) came with. Called by
`stackwise_ray.data.tokenizers`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stackwise_ray.core.errors import ConfigError, NotOnThisMachineError, nearest
from stackwise_ray.data.corpus import file_signature
from stackwise_ray.data.encoder import Encoder, FastEncoder, TokenizerSource, TrainTexts
from stackwise_ray.data.hub_access import hub_or_offline

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ROLES = ("pad", "bos", "eos", "unk", "mask", "cls", "sep")
_OWN_FILES = ("tokenizer.json", "tokenizer_config.json")
_GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_BERT_FILE = "vocab.txt"
_SENTENCEPIECE_FILES = "tokenizer.model*"
_SENTENCEPIECE_BPE = 2  # TrainerSpec.ModelType


class PretrainedSource(TokenizerSource):
    """A tokenizer by path, by the name of a folder in $STACKWISE_DATA/tokenizers, or by hub name.

    Raises:
        ConfigError: A folder of that name holds no tokenizer, or the name can only be a path and is not there.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.folder: Path | None = None
        self._tried: list[str] = []
        places = [Path(spec).expanduser()]
        shared = os.environ.get("STACKWISE_DATA")
        if shared and not spec.startswith(("/", ".", "~")):
            places.append(Path(shared) / "tokenizers" / spec)
        for place in places:
            self._tried.append(str(place))
            if place.is_dir():
                if not _files(place):
                    raise ConfigError(
                        f"= {spec}: {place} contains no tokenizer; it must contain tokenizer.json, "
                        "vocab.json and merges.txt, vocab.txt, or tokenizer.model",
                        path="data.tokenizer",
                    )
                self.folder = place
                return
        if spec.startswith(("/", ".", "~")):
            raise ConfigError(f"= {spec}: there is no such folder", path="data.tokenizer")

    def signature(self) -> Mapping[str, Any]:
        if self.folder is None:
            return {"kind": "hub", "name": self.spec}
        return {"kind": "folder", "files": [file_signature(path) for path in _files(self.folder)]}

    def build(self, train_texts: TrainTexts) -> Encoder:
        return PretrainedEncoder(self.load())

    def load(self) -> PreTrainedTokenizerFast:
        """The tokenizer as transformers has it.

        Raises:
            ConfigError: It is nowhere, or has no implementation in the `tokenizers` library.
        """
        tokenizer = self._from_hub() if self.folder is None else _from_folder(self.folder)
        if not tokenizer.is_fast:
            raise ConfigError(
                f"= {self.spec}: {type(tokenizer).__name__} has no fast implementation (tokenizer.json), "
                "and a slow one takes hours per corpus; choose another tokenizer",
                path="data.tokenizer",
            )
        return tokenizer

    def _from_hub(self) -> PreTrainedTokenizerFast:
        from transformers import AutoTokenizer

        reachable = True
        try:
            with hub_or_offline() as reachable:
                return cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(self.spec))
        # transformers reports "not there", "no network" and "no such repository" as OSError or ValueError.
        except (OSError, ValueError) as error:
            near = nearest(self.spec, ("bytes", "words"))
            hint = f"; did you mean '{near}'?" if near else "."
            raise (ConfigError if reachable else NotOnThisMachineError)(
                f"= {self.spec}: no such tokenizer{hint} Looked in {', '.join(self._tried)} and on the Hugging Face "
                f"hub ({type(error).__name__}). Fetch it with: hf download {self.spec} --local-dir {self.spec}",
                path="data.tokenizer",
            ) from error


class PretrainedEncoder(FastEncoder):
    """A transformers tokenizer that encodes plain text: no special token is added."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._pretrained = tokenizer
        tokens = {role: getattr(tokenizer, f"{role}_token", None) for role in _ROLES}
        super().__init__(tokenizer.backend_tokenizer, {role: token for role, token in tokens.items() if token})

    def save(self, folder: Path) -> None:
        # The flag is for the corpus; whoever loads the model expects the tokenizer's own behaviour.
        self._tokenizer.encode_special_tokens = False
        self._pretrained.save_pretrained(str(folder))


def _files(folder: Path) -> list[Path]:
    """The files of `folder` that make a tokenizer, sorted; empty where there is none."""
    for names in (*((name,) for name in _OWN_FILES), *_GPT2_FILES, (_BERT_FILE,)):
        if all((folder / name).is_file() for name in names):
            if names[0] in _OWN_FILES:
                return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".safetensors")
            return [folder / name for name in names]
    return sorted(folder.glob(_SENTENCEPIECE_FILES))[:1]


def _from_folder(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer

    files = _files(folder)
    if any(path.name in _OWN_FILES for path in files):
        try:
            return cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(str(folder)))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"= {folder}: transformers cannot read its tokenizer ({str(error).strip().splitlines()[0]}); save it "
                "again (tokenizer.save_pretrained), which writes tokenizer.json",
                path="data.tokenizer",
            ) from error
    if len(files) == 2:
        return GPT2Tokenizer(vocab=str(files[0]), merges=str(files[1]))
    if files[0].name == _BERT_FILE:
        return BertTokenizer(vocab=str(files[0]), do_lower_case=_is_uncased(files[0]))
    return _from_sentencepiece(files[0])


def _is_uncased(vocabulary: Path) -> bool:
    """A vocabulary without a capital letter outside its [SPECIAL] entries is for lower-cased text."""
    entries = vocabulary.read_text(encoding="utf-8").split("\n")
    return not any(entry != entry.lower() for entry in entries if not entry.startswith("["))


def _from_sentencepiece(path: Path) -> PreTrainedTokenizerFast:
    """A SentencePiece BPE model (Llama, Mistral) with exactly its own ids.

    The merges are all pairs of pieces that make a piece, in the order of the pieces' scores. transformers' Llama
    class is not used: it leaves out the space that SentencePiece puts before a text that begins with one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import import_protobuf
    from transformers.tokenization_utils_base import generate_merges

    model = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    model.ParseFromString(path.read_bytes())
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != _SENTENCEPIECE_BPE or normalizer.precompiled_charsmap or not normalizer.add_dummy_prefix:
        raise ConfigError(
            f"= {path}: this SentencePiece model cannot be read: only BPE with identity normalisation can "
            "(Llama, Mistral); convert this one to tokenizer.json",
            path="data.tokenizer",
        )
    vocabulary = {piece.piece: i for i, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces}
    merges = generate_merges(vocabulary, scores)
    unknown = model.pieces[trainer.unk_id].piece
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = {"unk": trainer.unk_id, "bos": trainer.bos_id, "eos": trainer.eos_id, "pad": trainer.pad_id}
    names = {f"{role}_token": model.pieces[i].piece for role, i in specials.items() if i >= 0}
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names.values()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)  # type: ignore[no-untyped-call]
