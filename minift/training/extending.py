"""What a subclass of Trainer may define, and what may be assigned to a Trainer.

Everything else that transformers' Trainer has is refused by its name: code that is never called,
or a value that is never read, would train something else than its author believes. Which names
these are, and what to use instead, is a table of the page FROM_HUGGING_FACE.md.
"""

from typing import Any

from minift.errors import ArgumentError, nearest
from minift.training.compatibility import page_table


def absent_names() -> dict[str, str]:
    """Return {name of transformers' Trainer: what to use instead}, from the page for readers."""
    return {name: cells[0] for name, cells in page_table("| refused | use |").items()}


def check_methods(cls: type, base: type, attributes: tuple[str, ...]) -> None:
    """Refuse a subclass of Trainer with a method that would never be called.

    Args:
        cls: the subclass.
        base: Trainer.
        attributes: what a Trainer sets on itself, over a method of the same name.

    Raises:
        ArgumentError: it has one; the message says what to use instead.
    """
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        for name in vars(owner):
            do = f"pass {name}= to it" if name in attributes else absent_names().get(name)
            if do is not None:
                raise ArgumentError(f"{owner.__name__}.{name} would never be called", do=do)


def override_of(trainer: Any, base: type, name: str) -> Any:
    """Return a method that a subclass defines, or that was assigned; None if it is Trainer's."""
    method = getattr(trainer, name)
    return None if getattr(method, "__func__", None) is getattr(base, name) else method


def check_attribute(trainer: Any, base: type, name: str) -> None:
    """Refuse to set an attribute that nothing would read. A subclass may have others of its own.

    Raises:
        ArgumentError: transformers' Trainer has it and minift's has not; or it is misspelt.
    """
    if hasattr(trainer, name) or (type(trainer) is not base and name not in absent_names()):
        return
    known = [one for one in (*vars(trainer), *dir(base)) if not one.startswith("_")]
    what, do = f"a Trainer has no attribute {name!r} to set", absent_names().get(name)
    raise ArgumentError(what, expected=nearest(name, known), do=do)
