"""The Catalog: which plugins there are, what they register, and how a name becomes an object."""

from __future__ import annotations

import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, get_type_hints

import pluggy
from typing_extensions import TypedDict  # pydantic takes the standard library's from Python 3.12 on

from multimodal_ssl import hookspecs
from multimodal_ssl.errors import InputError, nearest

if TYPE_CHECKING:
    from multimodal_ssl.types import Modality

ENTRY_POINT_GROUP = "multimodal_ssl"
KINDS = tuple(name.removeprefix("register_") for name in vars(hookspecs) if name.startswith("register_"))


class Registered(NamedTuple):
    """A factory, the plugin that it comes from, and the modalities that what it makes takes or gives, if told."""

    plugin: str
    factory: Callable[..., Any]
    modalities: tuple[str, ...] = ()


class Catalog:
    """What the plugins offer, by kind and name.

    pluggy's own entry point loading stops at the first plugin that fails to import and skips a second one of the same
    name without a word. Here each plugin stands or falls alone, and no order carries meaning.

    Attributes:
        broken: plugin -> why it could not be loaded.
    """

    def __init__(self, plugins: Iterable[tuple[str, Callable[[], object]]]) -> None:
        self.broken: dict[str, str] = {}
        self._registered: dict[str, dict[str, list[Registered]]] = {kind: defaultdict(list) for kind in KINDS}
        manager = pluggy.PluginManager("multimodal_ssl")
        manager.add_hookspecs(hookspecs)
        for name, load in plugins:
            try:
                self._add(manager, name, load())
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may fail in any way, and alone
                self.broken[name] = " ".join(f"{type(error).__name__}: {error}".split())

    @classmethod
    def discover(cls) -> Catalog:
        """Load every installed plugin (entry points of the group ``multimodal_ssl``)."""
        points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
        names = [point.name for point in points]
        return cls(
            (point.name if names.count(point.name) == 1 else f"{point.name} ({point.value})", point.load)
            for point in points
        )

    @classmethod
    def of(cls, **plugins: object) -> Catalog:
        """Build a catalog of just these plugins (modules or objects with hooks), without discovery."""
        return cls((name, functools.partial(lambda plugin: plugin, plugin)) for name, plugin in plugins.items())

    def _add(self, manager: pluggy.PluginManager, name: str, plugin: object) -> None:
        manager.register(plugin, name)
        found: list[tuple[str, str, Registered]] = []
        try:
            manager.check_pending()  # a misspelt hook would pass in silence
            for caller in manager.get_hookcallers(plugin) or []:
                kind = caller.name.removeprefix("register_")
                for hook in caller.get_hookimpls():
                    if hook.plugin is plugin:
                        hook.function(
                            lambda key, factory, *, modalities=(), kind=kind: found.append(
                                (kind, key, Registered(name, factory, tuple(modalities)))
                            )
                        )
        finally:
            manager.unregister(plugin)
        for kind, key, one in found:
            self._registered[kind][key].append(one)

    def names(self, kind: str) -> list[str]:
        """Return the registered names of one kind, sorted."""
        return sorted(self._registered[kind])

    def get(self, kind: str, name: str) -> Registered:
        """Return what is registered; raise InputError if nothing is, or two plugins claim the name."""
        found = self._registered[kind].get(name, [])
        if len(found) == 1:
            return found[0]
        noun = kind.removesuffix("s").replace("_", " ").replace("modalitie", "modality")
        if found:
            raise InputError(
                f"the {noun} {name!r} is registered by the plugins {', '.join(one.plugin for one in found)}: "
                "uninstall all but one"
            )
        broken = "".join(f"; the plugin {plugin!r} is broken ({why})" for plugin, why in self.broken.items())
        raise InputError(f"no {noun} is named {name!r}: {nearest(name, self.names(kind))}{broken}")

    def create(
        self, kind: str, name: str, *given: Any, options: Mapping[str, Any], beside: Collection[str] = ()
    ) -> Any:
        """Call a factory with what the core gives and the user's options, checked against its signature.

        Args:
            beside: what else may stand among the options, for the core; a mistake is answered with these, too.
        """
        return self.get(kind, name).factory(*given, **self._check(kind, name, options, self._open, beside))

    def complete(
        self, kind: str, name: str, options: Mapping[str, Any], *, beside: Collection[str] = ()
    ) -> dict[str, Any]:
        """Return all options of a factory, the given ones checked and converted, the others by default.

        What is registered itself stays the mapping of its name and its own options, completed.
        """
        return self._check(kind, name, options, self._describe, beside)

    def _check(
        self,
        kind: str,
        name: str,
        options: Mapping[str, Any],
        part: Callable[[str, str | Mapping[str, Any]], Any],
        beside: Collection[str] = (),
    ) -> dict[str, Any]:
        factory = self.get(kind, name).factory
        known = options_of(factory)
        for option in options:
            if option not in known:
                raise InputError(f"{name!r} has no option {option!r}: {nearest(option, {*known, *beside})}")
        if not known:
            return {}
        import pydantic

        # A default may be the name of something registered, and is opened like a given one.
        defaults = {option: one.default for option, one in known.items() if one.default is not inspect.Parameter.empty}
        try:
            checked = pydantic.TypeAdapter(_options_type(factory)).validate_python(
                {**defaults, **options}, context=part
            )
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            given = "" if first["type"] in ("missing", "value_error") else f" (given: {first['input']!r})"
            raise InputError(
                f"{name!r}, option {where}: {first['msg'].removeprefix('Value error, ')}{given}"
            ) from error
        return {option: checked[option] for option in known}

    def _open(self, kind: str, given: str | Mapping[str, Any]) -> Any:
        """Open what is an option of something else; of an objective, what makes it of pairs."""
        name, options = self._named(kind, given)
        if kind == "objectives":
            self.complete(kind, name, options)  # a mistake is told here
            return functools.partial(self.create, kind, name, options=options)
        try:
            return self.create(kind, name, options=options)
        except InputError as error:
            # The option tells where it is, its name which of a nest it is that can't be opened.
            begin = "" if str(error).startswith((repr(name), f"{name}:", f"{name}.")) else f"{name!r}: "
            raise InputError(f"{begin}{error}") from error

    def _describe(self, kind: str, given: str | Mapping[str, Any]) -> dict[str, Any]:
        name, options = self._named(kind, given)
        return {"name": name, **self.complete(kind, name, options)}

    def _named(self, kind: str, given: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        options = {"name": given} if isinstance(given, str) else dict(given)
        name = options.pop("name", None)
        if not isinstance(name, str):
            example = next(iter(self.names(kind)), "NAME")
            raise InputError(f"give a name and options, e.g. {{name: {example}, ...}} (given: {given!r})")
        self.get(kind, name)
        return name, options

    @functools.cache  # noqa: B019 - one catalog lives as long as the program
    def modality(self, name: str) -> Modality:
        """Return a registered modality."""
        return self.create("modalities", name, options={})


def options_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a factory: its keyword-only parameters."""
    parameters = inspect.signature(factory).parameters
    return {name: one for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}


def _options_type(factory: Callable[..., Any]) -> Any:
    """Return the options alone as a TypedDict: other annotations may name what only type checkers import."""
    from pydantic import ConfigDict, with_config

    options = options_of(factory)
    holder = type("Options", (), {"__annotations__": {name: one.annotation for name, one in options.items()}})
    hints = get_type_hints(holder, globalns=vars(sys.modules[factory.__module__]), include_extras=True)
    fields = {
        name: hints[name] if one.default is inspect.Parameter.empty else NotRequired[hints[name]]
        for name, one in options.items()
    }
    made = TypedDict("Options", fields)  # type: ignore[misc]  # its fields are known only now
    return with_config(ConfigDict(arbitrary_types_allowed=True))(made)
