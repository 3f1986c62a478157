"""Hashes of code, so that results are not taken for those of code that has changed since."""

from __future__ import annotations

import dis
import hashlib
import importlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType, ModuleType
from typing import Any

from l4sim.errors import InputError


def sources_hash(module: str) -> str:
    """The SHA-256 of the code of the top-level package, or module, that ``module`` is in, as its files are now.

    It covers every Python source of that package; of a module in no package its one file. It covers neither what they
    import from elsewhere nor files of other kinds.
    """
    digest = hashlib.sha256()
    for name, path in _files(module.partition(".")[0]):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def object_hash(thing: object) -> str:
    """The SHA-256 of what a function, class or object does, wherever it was defined.

    What can be imported counts as `sources_hash` of its module. What cannot (defined in a notebook or a script, a
    lambda, a closure) counts by its byte code, constants and defaults, and with all that it refers to: variables of
    the functions around it, and globals. Attributes and arguments of objects and partial functions count by value.
    Moving code to another line or cell changes nothing.

    Raises:
        InputError: it refers to something that has no value to go by, such as an open file.
    """
    written = io.BytesIO()
    pickler = _Fingerprint(written)
    try:
        pickler.dump(thing)
    except Exception as error:  # whatever an object's own way of being pickled may raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"what {getattr(thing, '__qualname__', thing)!s} refers to cannot be told from other things of its kind "
            f"({reason}): accepted is what is defined in a module, named as MODULE:ATTRIBUTE"
        ) from None
    digest = hashlib.sha256(written.getvalue())
    for module in sorted(pickler.modules):
        digest.update(sources_hash(module).encode())
    return digest.hexdigest()


def importable(thing: FunctionType | type) -> bool:
    """Whether another process finds this very thing by its module and name."""
    if thing.__module__ == "__main__":
        return False
    found: Any = importlib.import_module(thing.__module__)
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _files(top: str) -> Iterator[tuple[str, Path]]:
    """The files of a package's code by their names within it, in order."""
    module = importlib.import_module(top)
    if hasattr(module, "__path__"):
        for folder in map(Path, module.__path__):
            for path in sorted(folder.rglob("*.py")):
                yield str(path.relative_to(folder)), path
    elif getattr(module, "__file__", None):
        path = Path(str(module.__file__))
        yield path.name, path


def _part(*_: object) -> None:
    """Stands for what has been taken apart: a fingerprint is never loaded."""


class _Fingerprint(pickle.Pickler):
    """A pickle in which functions and classes that cannot be imported are taken apart, and that tells the others'
    top-level modules.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=4)
        self.modules: set[str] = set()

    def reducer_override(self, thing: Any) -> Any:
        """What `pickle` is to write for an object that is no plain value."""
        for kind, parts in _PARTS.items():
            if isinstance(thing, kind):
                return _part, parts(thing)
        if not isinstance(thing, (FunctionType, type)):
            return NotImplemented
        if importable(thing):
            self.modules.add(thing.__module__.partition(".")[0])
            return NotImplemented
        # The third part is written after the thing itself is known, which may refer to itself.
        return _part, (thing.__qualname__,), _of_class(thing) if isinstance(thing, type) else _of_function(thing)


def _of_class(made: type) -> tuple[object, ...]:
    own = {name: value for name, value in vars(made).items() if name not in _NOT_CODE}
    return made.__bases__, own


_NOT_CODE = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "_abc_impl")
# What `pickle` takes for no plain value, in plain values.
_PARTS: Mapping[type, Callable[[Any], tuple[object, ...]]] = {
    ModuleType: lambda module: (module.__name__,),
    property: lambda made: (made.fget, made.fset, made.fdel),
    staticmethod: lambda made: (made.__func__,),
    classmethod: lambda made: (made.__func__,),
    MappingProxyType: lambda made: (dict(made),),
    MemberDescriptorType: lambda slot: (slot.__name__,),
    GetSetDescriptorType: lambda slot: (slot.__name__,),
}


def _of_function(made: FunctionType) -> tuple[object, ...]:
    used = {name: made.__globals__[name] for name in sorted(_globals(made.__code__)) if name in made.__globals__}
    return _of_code(made.__code__), made.__defaults__, made.__kwdefaults__, _enclosed(made), used


def _enclosed(made: FunctionType) -> list[object]:
    """The variables of the functions around it, those left out that have no value yet."""
    values = []
    for cell in made.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            continue
    return values


def _of_code(code: CodeType) -> tuple[object, ...]:
    constants = [
        # A set has no order of its own.
        _of_code(value) if isinstance(value, CodeType) else sorted(map(repr, value)) if isinstance(value, frozenset)
        else value
        for value in code.co_consts
    ]  # fmt: skip
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def _globals(code: CodeType) -> set[str]:
    """The global names that a function and those within it use."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for value in code.co_consts:
        if isinstance(value, CodeType):
            names |= _globals(value)
    return names
