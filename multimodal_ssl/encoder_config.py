"""What a config tells of an encoder: its name and options, how far it is trained, from where, and its head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from multimodal_ssl.strict import PluginConfig, Strict

Head = Literal["linear", "mlp", "transformer", "adapter", "none", "teacher"]


class LoraConfig(Strict):
    """Low-rank updates beside frozen weights (LoRA, Hu et al. 2022), through peft.

    Attributes:
        rank: of the update.
        alpha: the update counts alpha / rank.
        dropout: of what goes into the update.
        dora: learn the length of each weight apart from its direction (DoRA, Liu et al. 2024).
        targets: regular expression of the linear layers that get one, a part of their name; all, if not given.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0, ge=0, lt=1)
    dora: bool = False
    targets: str | None = None

    @field_validator("targets")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value


class StartConfig(Strict):
    """A trained run in which an encoder of the same kind and options stands.

    Attributes:
        run: its folder.
        item: the name that it has there; the same as here, if not given.
    """

    run: Path
    item: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _run_alone(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str | Path) else value

    @field_validator("run")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()


class EncoderConfig(PluginConfig):
    """An encoder, and how far it is trained: wholly, unless one of `frozen`, `unfreeze` and `lora` is given.

    Attributes:
        start: a run to begin from: its encoder's weights and learnt preparation, and its head if that has one shape.
        freeze_head: its head stays as it is; with `frozen` and `start`, others are bound to the space of that run.
        cache: if it is frozen, keep the features of so many views of each item on the disk and train from them: 1 is
            the item as it is, each further one is augmented; 0 computes features at every visit.
        frozen: its weights stay as they are, dropout and batch statistics off; only its head learns.
        unfreeze: only so many of its last blocks learn.
        lora: only low-rank updates of its linear layers learn; with `frozen` and `start`, those of that run are kept.
        lr: its learning rate, relative to `train.lr`.
        layer_decay: each block learns at this share of the rate of the block after it.
        head: between its features and the joint space, in place of `binder.head`; ``none`` takes the features as they
            are, as wide as the space; ``adapter`` begins as that and learns what to add; ``transformer`` takes the mean
            of tokens in their place and learns what to add; ``teacher`` leaves them out: for the objective `distil`.
    """

    frozen: bool = False
    unfreeze: int | None = Field(default=None, ge=1)
    lora: LoraConfig | None = None
    lr: float = Field(default=1.0, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    head: Head | None = None
    start: StartConfig | None = None
    freeze_head: bool = False
    cache: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> EncoderConfig:
        given = [
            name
            for name, one in (("frozen", self.frozen or None), ("unfreeze", self.unfreeze), ("lora", self.lora))
            if one is not None
        ]
        if len(given) > 1 and not (self.frozen and self.lora and self.start):  # the updates are those of the run
            raise ValueError(f"give one of {' and '.join(given)}: both of {given[1]} and {given[0]} say what learns")
        if self.frozen and (self.lr != 1 or self.layer_decay != 1):
            raise ValueError("frozen: true and a learning rate of its own: nothing of it learns; leave out one")
        if self.cache and not self.frozen:
            raise ValueError("cache keeps the features of an encoder that does not change: add frozen: true")
        return self
