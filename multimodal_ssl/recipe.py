"""What a Binder is built from: encoders by their names and options, what they begin with, and its files in a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from multimodal_ssl.binder import Binder
from multimodal_ssl.checkpoint import load_tensors, save_tensors
from multimodal_ssl.config import Config
from multimodal_ssl.data import Supply, raw_items
from multimodal_ssl.digests import digest
from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.files import write_text
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.tuning import add_lora, tune
from multimodal_ssl.types import Encoder

FORMAT = 3  # of a run folder


def build_binder(config: Config, supplies: Sequence[Supply], catalog: Catalog) -> Binder:
    """Build an untrained Binder with an encoder for each modality that the supplies use."""
    kinds: dict[str, str] = {}
    for supply in supplies:
        for name in supply.names:
            kind = supply.source.modalities[name]
            if kinds.setdefault(name, kind) != kind:
                raise InputError(
                    f"{name!r} is {kinds[name]!r} in one source and {kind!r} in another: rename one of them"
                )
    for name in kinds:
        if name not in config.encoders:
            known = [one for one in catalog.names("encoders") if kinds[name] in catalog.get("encoders", one).modalities]
            raise InputError(
                f"no encoder for {name!r}: add encoders.{name}, or leave {name!r} out with `use:`"
                + (f"; encoders of {kinds[name]}: {', '.join(known)}" if known else "")
            )
    for name, one in config.encoders.items():
        if name not in kinds and not (one.frozen and (one.head == "none" or one.freeze_head)):
            raise InputError(f"encoders.{name}: no source gives {name!r}; {nearest(name, kinds)}")
        takes = catalog.get("encoders", one.name).modalities
        if name in kinds and takes and kinds[name] not in takes:  # told before weights are loaded
            raise InputError(f"encoders.{name}: {one.name!r} takes {takes[0]!r}, but {name!r} is {kinds[name]!r}")
    encoders = {
        name: {
            "name": one.name,
            "options": catalog.complete("encoders", one.name, one.options, beside=EncoderConfig.model_fields),
            "head": one.head or config.binder.head,
            "lora": one.lora and one.lora.model_dump(),
        }
        for name, one in config.encoders.items()
    }
    recipe = {"modalities": kinds, "encoders": encoders, "dim": config.binder.dim}
    binder = _from_recipe(recipe, catalog)
    for name, one in config.encoders.items():
        tune(name, binder.encoder(name), one)
        if one.freeze_head:
            binder.heads[name].requires_grad_(False)
    return binder


def start_encoders(binder: Binder, config: Config) -> None:
    """Give encoders what those of other runs have learnt, and their heads where they have the same shape."""
    for name, one in config.encoders.items():
        if not one.start:
            continue
        run, item = one.start.run, one.start.item or name
        recipe = read_recipe(run)
        theirs = recipe["recipe"]["encoders"]
        if item not in theirs:
            raise InputError(f"encoders.{name}.start: {run} has no encoder for {item!r}: {nearest(item, theirs)}")
        ours = json.loads(binder.recipe)["encoders"][name]
        for what in ("name", "options", "lora"):
            given = json.loads(json.dumps(ours[what], default=str))
            if given != theirs[item][what] and (what != "lora" or theirs[item][what]):  # lora may be new here
                raise InputError(
                    f"encoders.{name}.start: {item!r} of {run} has {what} {theirs[item][what]}, not {given}: give the "
                    "same here"
                )
        _check_preparation(run, recipe, item, binder.preparation.get(name))
        state = load_tensors(run / "model.safetensors")
        prefix, head = f"encoders.{item}.", f"heads.{item}."
        taken = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        own = binder.encoder(name).state_dict()
        for key in own.keys() - taken.keys():
            plain = key.replace(".base_layer.", ".")
            taken[key] = taken.pop(plain) if plain in taken else own[key]  # else it is a low-rank update
        binder.encoder(name).load_state_dict(taken)
        mine = binder.heads[name].state_dict()
        heads = {key.removeprefix(head): tensor for key, tensor in state.items() if key.startswith(head)}
        if {key: tensor.shape for key, tensor in mine.items()} == {key: tensor.shape for key, tensor in heads.items()}:
            binder.heads[name].load_state_dict(heads)
        elif one.freeze_head:
            raise InputError(
                f"encoders.{name}: freeze_head, but the head of {item!r} in {run} has another shape: give the same "
                "binder.dim and head"
            )


def adapt(binder: Binder, supplies: Sequence[Supply], names: Iterable[str] | None = None) -> None:
    """Let each encoder, or those of these names, learn its preparation from raw items of the sources."""
    for name in binder.encoders if names is None else names:
        encoder = binder.encoder(name)
        encoder.adapt(raw_items(supplies, [name], binder.modalities[name], encoder.adapt_to))


def load(run: Path | str, *, catalog: Catalog | None = None) -> Binder:
    """Open the Binder of a run, in eval mode."""
    run = Path(run)
    recipe = read_recipe(run)
    binder = rebuild(run, catalog=catalog)
    try:
        binder.load_state_dict(load_tensors(run / "model.safetensors"))
    except RuntimeError as error:
        raise InputError(f"{run / 'model.safetensors'} does not fit its binder.json: {error}") from error
    if binder.fingerprint() != recipe["fingerprint"]:
        raise InputError(f"{run / 'model.safetensors'} is not the file that was trained: its fingerprint differs")
    for name, told in binder.preparation.items():
        _check_preparation(run, recipe, name, told)
    return binder.eval()


def rebuild(run: Path | str, *, catalog: Catalog | None = None) -> Binder:
    """Build the Binder of a run anew, with none of what it learnt."""
    return _from_recipe(read_recipe(Path(run))["recipe"], catalog or Catalog.discover())


def save_binder(run: Path, binder: Binder, **about: Any) -> None:
    """Write weights and recipe of a Binder; what binder.json tells beside stays but for what is given."""
    save_tensors(run / "model.safetensors", binder.state_dict())
    path = run / "binder.json"
    recipe = {
        **(json.loads(path.read_text()) if path.exists() else {}),
        "format": FORMAT,
        "version": version("multimodal-ssl"),
        "fingerprint": binder.fingerprint(),
        "recipe": json.loads(binder.recipe),
        "preparation": binder.preparation,
        **about,
    }
    write_text(run / "binder.json", json.dumps(recipe, indent=2))


def _preparation(encoder: Encoder) -> dict[str, Any]:
    """Return what tells the files that an encoder was made of from others, as far as it describes them."""
    told = dict(encoder.describe())
    versions = {"multimodal_ssl": version("multimodal-ssl"), **told.pop("versions", {})}
    return {"versions": versions, "digest": f"{digest(json.dumps(told, sort_keys=True)) % 2**64:016x}"}


def _check_preparation(run: Path, recipe: Mapping[str, Any], name: str, now: Mapping[str, Any] | None) -> None:
    """Raise InputError if the files of an encoder have changed since a run was trained.

    Under other versions of its libraries nobody can tell: it is taken as it is.
    """
    before = recipe.get("preparation", {}).get(name)
    if before and now and before != now and before["versions"] == now["versions"]:
        options = recipe["recipe"]["encoders"][name]["options"]
        raise InputError(
            f"the files of {options.get('model', name)!r} (tokenizer, processor or config of encoders.{name}) are no "
            f"longer those that {run} was trained with: put them back, or train anew"
        )


def read_recipe(run: Path) -> dict[str, Any]:
    """Return what binder.json of a run tells; raise InputError if it is missing, damaged or of another format."""
    path = run / "binder.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{run} holds no trained run (no binder.json); train one with `mmssl fit`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        what = (found.get("version"), found.get("format")) if isinstance(found, dict) else (None, None)
        raise InputError(
            f"{run} was written by version {what[0]} in format {what[1]}; this version reads format {FORMAT}: "
            "use that version, or train again from its config.yaml"
        )
    if missing := {"recipe", "fingerprint", "pairs"} - found.keys():
        raise InputError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return found


def _from_recipe(recipe: Mapping[str, Any], catalog: Catalog) -> Binder:
    given = recipe["encoders"]
    made = {  # in an order of their own, so that a seed gives equal weights however the recipe was written
        name: catalog.create("encoders", given[name]["name"], options=given[name]["options"]) for name in sorted(given)
    }
    encoders = {name: made[name] for name in given}
    kinds, preparation = dict(recipe["modalities"]), dict[str, Any]()
    for name, encoder in encoders.items():
        # What learns nothing, such as the text tower of a space that others are bound to, may stand in no source.
        kind = kinds.setdefault(name, encoder.modality)
        if encoder.modality != kind:
            raise InputError(
                f"encoders.{name}: {recipe['encoders'][name]['name']!r} takes {encoder.modality!r}, "
                f"but {name!r} is {kind!r}"
            )
        preparation[name] = _preparation(encoder)  # before it is tuned
        if (lora := recipe["encoders"][name]["lora"]) is not None:
            add_lora(name, encoder, LoraConfig(**lora))
    modalities = {name: catalog.modality(kind) for name, kind in kinds.items()}
    heads = {name: one["head"] for name, one in recipe["encoders"].items()}
    text = json.dumps({**recipe, "modalities": kinds}, sort_keys=True, default=str)
    return Binder(encoders, modalities, dim=recipe["dim"], heads=heads, recipe=text, preparation=preparation)
