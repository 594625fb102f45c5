"""What a run is made of: strict models of its YAML file and the overrides of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from multimodal_ssl.encoder_config import EncoderConfig, Head
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.strict import PluginConfig, Strict


class CorruptConfig(Strict):
    """Planted noise, whose truth is known: to measure how training and audit take it.

    Attributes:
        mismatch: share of the samples that get another one's item.
        dropout: share of the samples that lose the item.
        words: share of the words of a text that become words of another text.
        kind: ``uniform`` takes it from any sample, ``near`` from the one next in the order of the texts.
        item: which item is meant; the last of `use`, if not given.
        drop: leave mismatched samples out instead: what an oracle would train on.
        seed: of the choice.
    """

    mismatch: float = Field(default=0, ge=0, le=1)
    dropout: float = Field(default=0, ge=0, le=1)
    words: float = Field(default=0, ge=0, le=1)
    kind: Literal["uniform", "near"] = "uniform"
    item: str | None = None
    drop: bool = False
    seed: int = Field(0, ge=0)


class DecoyConfig(Strict):
    """Decoys of an audit: samples whose partners were exchanged, so that it is known how mismatched ones fare.

    Each sample belongs to one of the judges. Part of a judge's own samples are decoys to all the others.

    Attributes:
        judges: number of runs that judge.
        judge: which of them this run is.
    """

    judges: int = Field(ge=2)
    judge: int = Field(ge=0)

    @model_validator(mode="after")
    def _one_of_them(self) -> DecoyConfig:
        if self.judge >= self.judges:
            raise ValueError(f"judge {self.judge} is none of {self.judges}, which begin at 0")
        return self


class SourceConfig(PluginConfig):
    """A pairing source.

    Attributes:
        use: names of the items to use; all that the source has, if not given.
        share: share of the batches, relative to the other sources.
        corrupt: noise to plant.
    """

    use: tuple[str, ...] | None = Field(None, min_length=1)
    share: float = Field(1.0, gt=0)
    corrupt: CorruptConfig | None = None

    @field_validator("use")
    @classmethod
    def _once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: give each name once")
        return value


class BinderConfig(Strict):
    """The joint space: its width D and the head between it and an encoder's features."""

    dim: int = Field(default=128, ge=2)
    head: Head = "linear"


class TrainConfig(Strict):
    """How to train. One of ``steps`` and ``epochs`` (passes over all sources together) is given.

    Attributes:
        batch: samples a step, over all processes.
        warmup: share of the steps, the first, in which the learning rate rises.
        decay: share of the steps, the last, in which it falls to 0 on half a cosine; 1: all that the warm-up leaves.
        clip: the largest norm of the gradient.
        precision: ``auto`` is bf16 where the hardware multiplies it faster (CUDA, AMX, AVX512-BF16), else fp32.
        workers: processes that read and prepare; 0 does it in the training process.
        threads: of torch, for the same bits on the same machine; None leaves torch's own choice.
        checkpoint_every: steps between checkpoints; 0 keeps only the last step's.
        max_unreadable: share of unreadable samples at which training stops.
        by_length: name of the items that are to be of like length in a batch, where the source knows lengths.
        shuffle_buffer: samples of a source without random access that are shuffled among themselves, in memory.
    """

    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    batch: int = Field(256, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    decay: float = Field(1.0, gt=0, le=1)
    clip: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(1, ge=0)
    threads: int | None = Field(None, ge=1)
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(200, ge=0)
    max_unreadable: float = Field(0.1, ge=0, le=1)
    by_length: str | None = None
    shuffle_buffer: int = Field(4096, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of train.steps and train.epochs; null takes one away, e.g. train.steps=null")
        return self


class TrustConfig(Strict):
    """How far the model's own belief in a sample weighs it at its next visit.

    Attributes:
        weigh: whether it does; None leaves it to the objective: ``acl`` asks for it.
        momentum: of the running geometric mean over the visits of a sample; the first ones count alike.
        warmup: visits of a sample before its trust weighs; they do not count after.
        full: share of the top trust that is enough for the whole weight; it rises to that from 0 during training.
        floor: a weight below it counts as 0.
        rounds: how many times to train, each time from untrained weights and for all of ``train``; trust goes on, so
            that the last training knows from its beginning whom to trust.
    """

    weigh: bool | None = None
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: int = Field(default=2, ge=0)
    full: float = Field(default=1.0, ge=0, le=1)
    floor: float = Field(default=0.1, ge=0, lt=1)
    rounds: int = Field(default=1, ge=1)


class AuditConfig(Strict):
    """What to do with the pairs that an audit holds for wrong.

    Attributes:
        path: its audit.parquet.
        use: ``drop`` leaves samples out, ``weigh`` multiplies the weight of each by 1 - p_mismatch.
        above: the p_mismatch from which a sample is dropped.
    """

    path: Path
    use: Literal["drop", "weigh"] = "drop"
    above: float = Field(default=0.5, gt=0, le=1)


class Config(Strict):
    """A run.

    Attributes:
        run: folder of the run.
        sources: what is trained on.
        guard: held-out sources of what the encoders can do already, measured before and after training.
        evaluation: held-out sources; what they hold of one modality is one gallery.
        encoders: name of the items -> encoder.
        vote: whether sources of the same items are voices on the same keys, trusted as far as they agree.
        audit: what to do with what an audit of the sources found.
        cache: folder of the features of encoders with `cache`; MMSSL_CACHE or the user's cache folder, if not given.
        decoys: samples to mismatch in a run that is to judge the others: `mmssl audit` sets it.
    """

    run: Path
    seed: int = Field(0, ge=0, lt=2**32)
    sources: tuple[SourceConfig, ...]
    evaluation: tuple[SourceConfig, ...] = ()
    guard: tuple[SourceConfig, ...] = ()
    encoders: dict[str, EncoderConfig]
    objective: PluginConfig = PluginConfig(name="info-nce")
    trust: TrustConfig = TrustConfig()
    vote: bool = False
    audit: AuditConfig | None = None
    decoys: DecoyConfig | None = None
    binder: BinderConfig = Field(default_factory=BinderConfig)
    cache: Path | None = None
    train: TrainConfig

    @field_validator("run", "cache")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value and value.expanduser()

    @model_validator(mode="after")
    def _has_sources(self) -> Config:
        if not self.sources:  # min_length would be told beside every error in the only source
            raise ValueError("sources: give at least one")
        return self


def parse_config(values: Mapping[str, Any], origin: str = "config") -> Config:
    """Check the values of a config; raise InputError that names the key, and the nearest known one if it is unknown."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise InputError("\n".join(f"{origin}: {_explain(dict(one))}" for one in error.errors())) from error


def parse_sources(values: Sequence[Any], origin: str = "sources") -> list[SourceConfig]:
    """Check the values of sources, as `parse_config` does those of a config."""
    try:
        return [SourceConfig.model_validate(one) for one in values]
    except ValidationError as error:
        raise InputError(f"{origin}: {error.errors()[0]['msg']}") from error


class _Loader(yaml.SafeLoader):
    """Reads YAML as safe_load does, but for a key that is given twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise InputError(f"{key.value!r} is given twice, again in line {key.start_mark.line + 1}: keep one")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply dotted overrides such as ``train.lr=1e-3`` or ``sources.0.path=x.csv``, and check it."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"can't read the config {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no mapping; a config begins with keys such as `sources:` and `encoders:`")
    for override in overrides:
        override_key(values, override)
    return parse_config(values, str(path))


def dump_config(config: Config) -> str:
    """Return the config as YAML with every default written out; reading it gives the same config."""
    return yaml.safe_dump(_plain(config.model_dump()), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return what YAML has types for; the options of plugins stay as they were read."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def override_key(values: dict[str, Any], override: str) -> None:
    """Set a key in place, given as ``train.lr=1e-3``; raise InputError if it is none, or no place for one."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"{override!r} is no override; write key=value, e.g. train.lr=1e-3")
    *parents, last = dotted.split(".")
    place: Any = values
    for part in parents:
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[part] if isinstance(place, dict) else _item(place, part, dotted)
    try:
        value = yaml.load(text, _Loader)
    except InputError as error:
        raise InputError(f"{override!r}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{override!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, dotted)
        place[int(last)] = value


def _item(place: Any, part: str, dotted: str) -> Any:
    if not isinstance(place, list):
        raise InputError(f"{dotted}: {part!r} is below a plain value")
    if not part.isdecimal() or int(part) >= len(place):
        raise InputError(f"{dotted}: {part!r} is no position in a list of {len(place)}")
    return place[int(part)]


def _explain(error: dict[str, Any]) -> str:
    """Return one line for one of pydantic's errors."""
    where = ".".join(str(part) for part in error["loc"]) or "the whole"
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] in ("missing", "value_error") else f" (given: {error['input']!r})"
        return f"{where}: {error['msg'].removeprefix('Value error, ')}{given}"
    *parents, last = error["loc"]
    model: type[BaseModel] = Config
    for parent in parents:
        if parent in model.model_fields:  # else it is a place in a list, or the key of a mapping
            (model,) = _models(model.model_fields[parent].annotation)
    return f"unknown key {where}: {nearest(str(last), model.model_fields)}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in a type, such as SourceConfig in tuple[SourceConfig, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for one in get_args(annotation) for model in _models(one)]
