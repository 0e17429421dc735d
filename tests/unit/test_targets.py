"""ChannelSpecs: one per channel, consistent with its target, and the source of what other modules know about channels."""

from itertools import chain, combinations
from typing import get_args

import pytest
from temporalio import activity

from activities.rendering.sandbox.markup import MARKUPS
from bellwire import contract
from bellwire.contract import channel_queue
from bellwire.targets import (
    SPECS,
    WORKER_CHANNELS,
    Channel,
    ChannelSpec,
    EmailTarget,
    PollTarget,
    SmsTarget,
    Target,
    WebhookFormat,
    WebhookTarget,
)
from bellwire.targets.specs import by_channel
from workflows.policies import INLINE_CHANNELS, SCHEDULES

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def _name(stub: object) -> str | None:
    return activity._Definition.must_from_callable(stub).name  # type: ignore[arg-type]


def test_every_channel_has_one_spec_and_one_target() -> None:
    union, _ = get_args(Target)
    assert set(SPECS) == set(Channel)
    assert {spec.target for spec in SPECS.values()} == set(get_args(union))
    assert [spec.channel for spec in SPECS.values()] == list(SPECS)


def test_a_channel_that_is_registered_in_part_is_refused() -> None:
    union, _ = get_args(Target)
    specs, targets = list(SPECS.values()), set(get_args(union))
    with pytest.raises(RuntimeError, match="channel sms has no spec: add it to _SPECS"):
        by_channel([spec for spec in specs if spec.channel is not Channel.SMS], targets)
    with pytest.raises(RuntimeError, match="channel sms: add SmsTarget to Target"):
        by_channel(specs, targets - {SmsTarget})


@every_spec
def test_a_target_is_of_its_channel(spec: ChannelSpec) -> None:
    assert spec.target.model_fields["channel"].default is spec.channel
    assert spec.example.channel is spec.channel
    assert spec.target.model_validate(spec.example.model_dump()) == spec.example


@every_spec
def test_names_and_schedules_derive_from_the_spec(spec: ChannelSpec) -> None:
    assert channel_queue(spec.channel) == spec.queue == f"bellwire-{spec.channel}"
    assert (spec.channel in contract.SEND) is (spec.channel in WORKER_CHANNELS) is not spec.in_services
    assert spec.in_services or _name(contract.SEND[spec.channel]) == f"send_{spec.channel}"
    assert SCHEDULES[spec.channel] == spec.schedule
    assert (spec.channel in INLINE_CHANNELS) is spec.inline
    assert all(delay > 0 for delay in spec.schedule)
    assert not (spec.inline and spec.intent)


@every_spec
def test_templates_are_named_after_their_channel(spec: ChannelSpec) -> None:
    assert all(name.startswith(f"{spec.channel}.") for name in spec.templates)
    # One file serves the chats of all providers.
    assert all(file.startswith((f"{spec.channel}.", "chat.")) for file in spec.templates.values())


@every_spec
def test_values_are_escaped_in_the_text_of_every_chat(spec: ChannelSpec) -> None:
    chats = {name for name, file in spec.templates.items() if file == "chat.txt"}
    assert chats <= MARKUPS.keys(), "add the markup of the text to MARKUPS in activities/rendering/sandbox/markup.py"


def test_no_two_channels_share_a_template() -> None:
    named = [
        {*spec.templates, *(file for file in spec.templates.values() if not file.startswith("chat."))}
        for spec in SPECS.values()
    ]
    assert not set(chain.from_iterable(one & other for one, other in combinations(named, 2)))


def test_people_have_recipients_and_endpoints_have_an_address() -> None:
    several = EmailTarget(to=("ann@example.com", "bob@example.com"))
    assert several.recipients == ("ann@example.com", "bob@example.com")
    assert several.address == "ann@example.com, bob@example.com"
    assert SmsTarget(to="+14155550123").recipients == (SmsTarget(to="+14155550123").address,)
    endpoint = WebhookTarget(url="https://app.example/hooks")
    assert (endpoint.recipients, endpoint.address) == ((), "https://app.example/hooks")


def test_a_feed_has_no_address_and_is_read_as_it_is() -> None:
    assert PollTarget().model_dump(mode="json") == {"channel": "poll"}
    assert (PollTarget().recipients, PollTarget().address, PollTarget().is_rendered) == ((), "its feed", False)


def test_only_webhooks_can_be_sent_unrendered_and_ask_for_consent() -> None:
    assert all(target.is_rendered and not target.needs_consent for target in (EmailTarget(to="a@b.example"),))
    assert not WebhookTarget(url="https://a.example").is_rendered
    assert WebhookTarget(url="https://a.example", format=WebhookFormat.TEMPLATE).is_rendered
    assert WebhookTarget(url="https://a.example", handshake=True).needs_consent
