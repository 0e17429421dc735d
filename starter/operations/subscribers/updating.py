"""Updating: changes of subscriptions from documents, merged with what is stored, checked as in subscribing, and stored.

A change is a JSON merge patch (RFC 7396): fields that it leaves out stay, null clears a field, an array replaces one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bellwire.errors import SubscriptionChanged
from bellwire.models import TRUSTED
from bellwire.registry import Registry
from bellwire.registry.db import auditing
from bellwire.registry.db.auditing import Change
from bellwire.registry.subscriptions import UPDATED
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription
from bellwire.targets.stored_secret import HIDDEN
from starter.operations.problems import InputInvalid, Problem, problems_of
from starter.operations.subscribers.subscribing import target_problems, template_problems
from starter.operations.subscribers.templates import check_templates

#: How often a change is made again to a subscription that somebody else changed meanwhile.
_TRIES = 10
#: What `subscriptions show` prints of a subscription and no change can set. So its output can be edited and given back.
_DESCRIPTIVE = {"keys", "updated_at", "state_reason"}
_FIXED = {
    "tenant": "create a new subscription for another tenant",
    "state": "use `subscriptions pause` or `subscriptions resume`",
}


@dataclass(frozen=True, kw_only=True)
class SubscriptionChange:
    """A change to one subscription."""

    id: str
    #: Merge patches, applied in order.
    patches: Sequence[Mapping[str, Any]]
    #: The version that the change is made to; None: the present one.
    if_version: int | None = None
    #: Its place in the document.
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Updated:
    """A subscription before and after its update; the same if there was nothing to change."""

    before: Subscription
    after: Subscription


def read_change(
    value: Mapping[str, Any], *, subscription_id: str | None = None, if_version: int | None = None, place: str = ""
) -> SubscriptionChange:
    """A change from its JSON object, which names the subscription unless `subscription_id` does. Raises InputInvalid.

    A `version` in the object is the one that the change is made to.
    """
    named = value.get("id", subscription_id)
    if not isinstance(named, str) or subscription_id not in {None, named}:
        message = (
            "must be the subscription's id" if subscription_id is None else f"must be {subscription_id} or left out"
        )
        raise InputInvalid(message, field="id")
    version = value.get("version", if_version)
    if not (version is None or (isinstance(version, int) and not isinstance(version, bool))):
        raise InputInvalid("must be a number", field="version")
    if if_version not in {None, version}:
        raise InputInvalid(f"is {version} here and {if_version} there", field="version", remedy="omit one of the two")
    if {"secret", "asymmetric"} & value.keys():
        raise InputInvalid("cannot be updated", field="secret", remedy="use `subscriptions rotate`")
    patch = {name: item for name, item in value.items() if name not in {"id", "version", *_DESCRIPTIVE}}
    return SubscriptionChange(id=named, patches=(patch,), if_version=version, place=place)


async def update_subscriptions(
    registry: Registry, changes: Sequence[SubscriptionChange], settings: Settings
) -> list[Updated]:
    """Make the changes, all or none, and return the subscriptions in their order.

    Raises InputInvalid with all problems, SubscriptionNotFound, and SubscriptionChanged if one is not at its `if_version`.
    """
    _check_distinct(changes)
    for _ in range(_TRIES):
        before = [await registry.subscriptions.get(change.id) for change in changes]
        after = await _changed(changes, before, settings)
        different = [new for old, new in zip(before, after, strict=True) if new != old]
        try:
            made = [Change("subscription.updated", each.id, each.tenant) for each in different]
            with auditing.changes(made):
                stored = {each.id: each for each in await registry.subscriptions.update(different)}
        except SubscriptionChanged:
            if any(change.if_version is not None for change in changes):
                raise
            continue
        return [Updated(before=old, after=stored.get(old.id, old)) for old in before]
    raise SubscriptionChanged


def _check_distinct(changes: Sequence[SubscriptionChange]) -> None:
    ids = [change.id for change in changes]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise InputInvalid(f"{', '.join(sorted(twice))} is given twice", field="id", remedy="give one change for each")


async def _changed(
    changes: Sequence[SubscriptionChange], before: Sequence[Subscription], settings: Settings
) -> list[Subscription]:
    """The subscriptions with the changes. Raises InputInvalid, SubscriptionChanged."""
    after, problems = list[Subscription](), list[Problem]()
    for change, old in zip(changes, before, strict=True):
        if change.if_version not in {None, old.version}:
            raise SubscriptionChanged(
                f"{old.id} is at version {old.version}, not {change.if_version}; read it again, and make the change to that"
            )
        try:
            after.append(_merged(change, old, settings))
        except (ValidationError, InputInvalid) as error:
            problems += problems_of(error, place=change.place, known=Subscription.known_fields)
    if not problems:
        problems = await _own_template_problems(changes, before, after)
    if problems:
        raise InputInvalid.of(problems)
    return after


def _merged(change: SubscriptionChange, old: Subscription, settings: Settings) -> Subscription:
    if old.target.is_erased:
        raise InputInvalid(
            "the recipient was erased", field="target", remedy="create a new subscription with another id"
        )
    merged = stored = old.model_dump(mode="json", by_alias=True, context=TRUSTED)
    for patch in change.patches:
        _check_fixed(patch, stored)
        merged = _merge(merged, _unhidden(patch, merged))
    new = Subscription.model_validate(merged)
    problems = [
        *(target_problems(new, settings) if new.target != old.target else ()),
        *(template_problems(new, settings) if (new.template, new.target) != (old.template, old.target) else ()),
    ]
    if problems:
        raise InputInvalid.of(problems)
    # What was stored stays as it is, even if it would be stored in another form now.
    kept = {name: getattr(old, name) for name in UPDATED if merged.get(name) == stored.get(name)}
    return new.model_copy(update={**kept, "updated_at": old.updated_at})


def _check_fixed(patch: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    problems = [
        Problem(message=f"is {stored[name]} and cannot be updated", field=name, remedy=remedy)
        for name, remedy in _FIXED.items()
        if name in patch and patch[name] != stored[name]
    ]
    target, channel = patch.get("target"), stored["target"]["channel"]
    if isinstance(target, Mapping) and target.get("channel", channel) != channel:
        problems.append(
            Problem(
                message=f"is {channel}, and a subscription keeps its channel",
                field="target.channel",
                remedy="create a new subscription, then pause this one and delete it once its deliveries have settled",
            )
        )
    if problems:
        raise InputInvalid.of(problems)


def _merge(value: Any, patch: Any) -> Any:
    """`value` with a JSON merge patch applied (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(value) if isinstance(value, Mapping) else {}
    for name, item in patch.items():
        if item is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), item)
    return merged


def _unhidden(patch: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The patch with stored values for the stars that are shown instead of private ones, and header names as stored."""
    target = patch.get("target")
    if not isinstance(target, Mapping):
        return patch
    known, target = stored["target"], dict(target)
    if isinstance(headers := target.get("headers"), Mapping):
        spelled = {name.lower(): name for name in known.get("headers") or ()}
        target["headers"] = {spelled.get(name.lower(), name): value for name, value in headers.items()}
    return {**patch, "target": _restored(target, known, "target")}


def _restored(values: Mapping[str, Any], stored: Any, place: str) -> dict[str, Any]:
    """The values with stored ones for stars, at any depth."""
    known = stored if isinstance(stored, Mapping) else {}
    restored = dict[str, Any]()
    for name, value in values.items():
        # The names of headers are private, too.
        field = place if place == "target.headers" else f"{place}.{name}"
        if isinstance(value, Mapping):
            value = _restored(value, known.get(name), field)
        elif value == HIDDEN and (value := known.get(name)) is None:
            raise InputInvalid(
                "is hidden by stars, and no value is stored", field=field, remedy="give the value itself"
            )
        restored[name] = value
    return restored


async def _own_template_problems(
    changes: Sequence[SubscriptionChange], before: Sequence[Subscription], after: Sequence[Subscription]
) -> list[Problem]:
    """The problems of own templates that are new."""
    new = [
        (change.place, each.templates)
        for change, old, each in zip(changes, before, after, strict=True)
        if each.templates and each.templates != old.templates
    ]
    faults = await check_templates([templates for _, templates in new])
    return [
        Problem(message=fault, field="templates", place=place)
        for (place, _), fault in zip(new, faults, strict=True)
        if fault
    ]
