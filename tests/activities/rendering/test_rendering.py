"""Rendering: the choice of the template, its output, and its errors."""

import codecs
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.rendering.renderer import MAX_SUBJECT, EmailText, Renderer
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.filters import (
    MAX_ROWS,
    format_time,
    rows,
)
from activities.rendering.sandbox.output import MAX_OUTPUT_BYTES
from activities.rendering.template_files import FILE_OF, FILES
from activities.rendering.text import one_line, printable
from bellwire.errors import TemplateInvalid
from bellwire.events import Event
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from tests.factories import event, send_request, subscription

EMAIL = {"channel": "email", "to": "ann@example.com"}
PLATFORM = ["app.authorized", "order.paid", "order.refunded", "user.registered"]
#: Unusual data.
ODD = [None, 7, "text", True, [], {}, [1, [2]], {"order": None}, {"name": {"x": 1}, "items": [{"a": 1}]}]


def by_email(**fields: Any) -> Subscription:
    return subscription(EMAIL, **fields)


def write(folder: Path, **files: str) -> Path:
    """Template files by path, with __ for a slash and the last _ for a dot: a__email_txt."""
    for name, source in files.items():
        *steps, file = name.split("__")
        path = folder.joinpath(*(step.replace("_", "-") for step in steps), file.replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def test_the_built_in_templates_compile() -> None:
    renderer = Renderer(None)
    renderer.check()
    assert renderer.names() == sorted(["default", *PLATFORM])


@pytest.mark.parametrize("name", [*PLATFORM, "unheard.of", "../../etc/passwd", ".", "default"])
@pytest.mark.parametrize("locale", ["en", "zh-cn", "de"])
@pytest.mark.parametrize("data", ODD, ids=repr)
async def test_every_event_can_be_rendered(name: str, locale: str, data: Any) -> None:
    renderer, published, to = Renderer(None), event(type=name, data=data), by_email(locale=locale)
    mail = await renderer.email(send_request(to, published))
    assert mail.subject
    assert mail.html
    assert mail.text
    assert mail.text.strip()
    assert await renderer.text(send_request(to, published), "sms.text")


async def test_the_default_template_shows_type_subject_time_source_and_data() -> None:
    published = event(
        type="stock.low",
        subject="bolt <M4>",
        time="2026-11-23T10:00:00+02:00",
        data={"left": 3, "shop": {"city": "Köln"}},
    )
    mail = await Renderer(None).email(send_request(by_email(), published))
    assert mail.subject == "stock.low: bolt <M4>"
    assert mail.text is not None
    for words in ("stock.low", "bolt <M4>", "/shop", "2026-11-23 08:00 UTC", "left: 3", "shop.city: Köln"):
        assert words in mail.text
    assert mail.html is not None
    assert "bolt &lt;M4&gt;" in mail.html
    assert "<M4>" not in mail.html


async def test_a_built_in_template_is_rendered_in_the_subscriptions_language() -> None:
    renderer = Renderer(None)
    assert (await renderer.email(send_request(by_email(), event()))).subject == "Order 42 is paid"
    assert (await renderer.email(send_request(by_email(locale="zh-CN"), event()))).subject == "订单 42 已付款"
    chinese = await renderer.text(send_request(by_email(locale="zh-CN"), event()), "sms.text")
    assert chinese == "订单 42 已付款，金额 19.90 EUR。"  # noqa: RUF001
    assert (
        await renderer.text(send_request(by_email(locale="fr"), event()), "sms.text") == "Order 42 is paid: 19.90 EUR."
    )


async def test_the_most_specific_template_wins_for_each_file(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a__sms_txt="a",
        a__pt__sms_txt="a pt",
        a__pt_BR__sms_txt="a pt-BR",
        default__sms_txt="default",
        default__pt__sms_txt="default pt",
    )
    renderer = Renderer(folder)

    async def sms(name: str, locale: str) -> str:
        return await renderer.text(send_request(by_email(locale=locale), event(type=name)), "sms.text")

    assert [await sms("a", locale) for locale in ("pt-BR", "pt-br", "pt-PT", "en")] == [
        "a pt-BR",
        "a pt-BR",
        "a pt",
        "a",
    ]
    assert [await sms("b", locale) for locale in ("pt-BR", "en")] == ["default pt", "default"]


async def test_a_subscription_can_name_another_template(tmp_path: Path) -> None:
    renderer = Renderer(write(tmp_path, terse__sms_txt="{{ type }}!"))
    assert await renderer.text(send_request(by_email(template="terse"), event()), "sms.text") == "order.paid!"


async def test_a_text_template_is_not_combined_with_the_html_of_a_less_specific_one(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"order.paid__email_txt": "mine"})
    assert await Renderer(folder).email(send_request(by_email(), event())) == EmailText(
        subject="Order 42 is paid", text="mine\n", html=None
    )


async def test_the_text_of_a_template_with_html_only_is_derived_from_the_html(tmp_path: Path) -> None:
    html = "<style>p{}</style><h1>Hi</h1><p>Fish &amp; chips,<br>{{ data.order }}</p><ul><li>one</li></ul>"
    html += "<a href='https://x.example/y'>go</a>"
    mail = await Renderer(write(tmp_path, a__email_html=html)).email(send_request(by_email(), event(type="a")))
    assert mail.text == "Hi\n\nFish & chips,\n42\n\n* one\ngo (https://x.example/y)\n"


async def test_html_is_escaped_and_text_is_not(tmp_path: Path) -> None:
    folder = write(tmp_path, a__email_html="<p>{{ data }}</p>", a__email_txt="{{ data }}", a__sms_txt="{{ data }}")
    published = event(type="a", data="<script>alert('hi')</script>")
    renderer = Renderer(folder)
    mail = await renderer.email(send_request(by_email(), published))
    assert mail.html == "<p>&lt;script&gt;alert('hi')&lt;/script&gt;</p>"
    assert mail.text is not None
    assert (
        mail.text.strip()
        == await renderer.text(send_request(by_email(), published), "sms.text")
        == "<script>alert('hi')</script>"
    )


async def test_data_is_never_compiled_as_a_template() -> None:
    mail = await Renderer(None).email(send_request(by_email(), event(data={"order": "{{ 6 * 7 }}"})))
    assert mail.subject == "Order {{ 6 * 7 }} is paid"


async def test_a_field_with_the_name_of_a_method_is_the_field(tmp_path: Path) -> None:
    folder = write(tmp_path, a__sms_txt="{% for item in data.items %}{{ item }} {% endfor %}{{ data.keys }}")
    assert (
        await Renderer(folder).text(
            send_request(by_email(), event(type="a", data={"items": [1, 2], "keys": "k"})), "sms.text"
        )
        == "1 2 k"
    )


async def test_a_subject_is_one_line_of_limited_length() -> None:
    data = {"order": "1\r\nBcc: eve@example.com\n\n \u2028\x00 body " + "x" * 500}
    subject = (await Renderer(None).email(send_request(by_email(), event(data=data)))).subject
    assert subject.startswith("Order 1 Bcc: eve@example.com body xxx")
    assert subject.endswith("…")
    assert len(subject) == MAX_SUBJECT


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ok\n{{ data.total }}", "template a/email.txt line 2: total is missing"),
        ("\n\n{{ nothing }}", "template a/email.txt line 3: nothing is missing"),
        ("{{ data[data.secret] }}", "template a/email.txt line 1: a variable is missing"),
        ("{{ data[data.word] }}", "template a/email.txt line 1: a variable is missing"),
        ("{{ data[data.word].length }}", "template a/email.txt line 1: a variable is missing"),
        ("{{ data.keys() }}", "template a/email.txt line 1: keys is missing"),
        ("{{ 1 / 0 }}", "template a/email.txt line 1: ZeroDivisionError"),
        ("{{ data.secret.__class__ }}", "template a/email.txt line 1: access to attribute '__class__'"),
        ("{{ range(999999999) }}", "template a/email.txt line 1: OverflowError"),
        ("{% include 'b/none.txt' %}", "template a/email.txt line 1: b/none.txt does not exist"),
        ("{% include data.word %}", "template a/email.txt line 1: a template that it includes does not exist"),
        ("\n{% if %}", "template a/email.txt line 2: Expected an expression"),
        ("{% for i in range(99999) %}{{ '0123456789' }}{% endfor %}", f"has more than {MAX_OUTPUT_BYTES:,} bytes"),
    ],
)
async def test_a_template_error_names_file_line_and_problem_but_no_data(
    tmp_path: Path, source: str, message: str
) -> None:
    renderer = Renderer(write(tmp_path, a__email_txt=source))
    with pytest.raises(TemplateInvalid) as caught:
        await renderer.email(
            send_request(by_email(), event(type="a", data={"secret": "ann@example.com", "word": "ann"}))
        )
    assert message in str(caught.value)
    assert "ann@" not in str(caught.value)


async def test_an_error_inside_an_included_template_names_that_file(tmp_path: Path) -> None:
    folder = write(tmp_path, a__sms_txt="{% include 'a/part.txt' %}", a__part_txt="\n{{ gone }}")
    with pytest.raises(TemplateInvalid, match=r"template a/part\.txt line 2: gone is missing"):
        await Renderer(folder).text(send_request(by_email(), event(type="a")), "sms.text")


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("a/email.txt", "fine\n{{ oops", r"a/email\.txt line 2"),
        ("a/email.txt", "{{ x | nofilter }}", "No filter named 'nofilter'"),
        ("a/sms.txt", "{% include 'a/_gone.txt' %}", "_gone.txt does not exist"),
        ("a/emial.txt", "", "unknown file name emial.txt; use one of "),
        ("a/zh-cn/sms.txt", "", "write the locale as zh-CN"),
        ("sms.txt", "", "the path must be NAME/sms.txt"),
        ("a/b/c/sms.txt", "", "the path must be NAME/sms.txt"),
    ],
)
def test_check_finds_invalid_templates(tmp_path: Path, file: str, source: str, message: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    with pytest.raises(TemplateInvalid, match=message):
        Renderer(tmp_path).check()


def test_check_finds_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, a__sms_txt="").joinpath("a", "sms.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateInvalid, match=r"a/sms\.txt: is not UTF-8"):
        Renderer(tmp_path).check()


def test_check_finds_that_the_folder_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(TemplateInvalid, match="does not exist; create it"):
        Renderer(tmp_path / "gone").check()


async def test_a_fixed_template_takes_effect_at_once(tmp_path: Path) -> None:
    renderer = Renderer(write(tmp_path, a__sms_txt="{{ gone }}"))
    with pytest.raises(TemplateInvalid):
        await renderer.text(send_request(by_email(), event(type="a")), "sms.text")
    write(tmp_path, a__sms_txt="fixed, and longer than before")
    assert await renderer.text(send_request(by_email(), event(type="a")), "sms.text") == "fixed, and longer than before"


async def test_the_layout_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "_layout.html").write_text("<b>{% block title %}{% endblock %}</b>")
    renderer = Renderer(tmp_path)
    renderer.check()
    assert (await renderer.email(send_request(by_email(), event()))).html == "<b>Order 42 is paid</b>"


def test_has_tells_whether_a_channel_has_a_template(tmp_path: Path) -> None:
    renderer = Renderer(write(tmp_path, a__zh_CN__sms_txt="x"))
    assert renderer.names() == sorted(["a", "default", *PLATFORM])
    assert renderer.has("a", Channel.SMS)
    assert not renderer.has("a", Channel.EMAIL)
    assert renderer.has("order.paid", Channel.EMAIL)
    assert not renderer.has("order.paid", Channel.WEBHOOK)
    assert Renderer(write(tmp_path, b__webhook_json="{}")).has("b", Channel.WEBHOOK)
    assert not renderer.has("../templates/order.paid", Channel.EMAIL)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, []),
        ("words", [("", "words")]),
        ({"a": None, "b": [], "c": True}, [("a", "-"), ("b", "-"), ("c", "yes")]),
        ({"a": {"b": [1, {"c": 2}]}}, [("a.b.1", "1"), ("a.b.2.c", "2")]),
        ({"a": "x\ny"}, [("a", "x y")]),
    ],
)
def test_data_is_shown_as_labelled_rows(data: Any, expected: list[tuple[str, str]]) -> None:
    assert rows(data) == expected


def test_large_data_is_cut_to_the_maximum_number_of_rows() -> None:
    found = rows({str(number): "x" * 1000 for number in range(5000)})
    assert len(found) == MAX_ROWS
    assert found[-1] == ("…", "")
    assert len(rows(list(range(MAX_ROWS)))) == MAX_ROWS
    assert rows(list(range(MAX_ROWS)))[-1] == (str(MAX_ROWS), str(MAX_ROWS - 1))


async def test_the_largest_event_makes_a_mail_within_the_limit() -> None:
    published = Event(source="/a", type="a", subject="s" * 1024, data={f"&{n}" * 20: "&😀" * 500 for n in range(90)})
    mail = await Renderer(None).email(send_request(by_email(), published))
    assert mail.html is not None
    assert len(mail.html.encode()) < MAX_OUTPUT_BYTES


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-23T08:00:00.123Z", "2026-11-23 08:00 UTC"),
        ("2026-11-23t08:00:00.123456789z", "2026-11-23 08:00 UTC"),
        ("2026-11-23 10:00:00+02:00", "2026-11-23 08:00 UTC"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00 UTC"),
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
        ("9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59-01:00"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31 23:59 UTC"),
        ("2016-12-31T15:59:60.5-08:00", "2016-12-31 23:59 UTC"),
        ("soon", "soon"),
        ("", ""),
        (None, "None"),
        (7, "7"),
    ],
)
def test_times_are_formatted_and_other_values_are_unchanged(time: Any, expected: str) -> None:
    assert format_time(time) == expected


@given(st.datetimes(), st.timezones() | st.just(UTC))
def test_every_time_that_an_event_can_have_is_formatted(time: datetime, zone: tzinfo) -> None:
    assert format_time(time.replace(tzinfo=zone).isoformat())


async def test_a_byte_order_mark_of_a_file_is_dropped(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a__email_subject_txt="Order {{ data.order }}",
        a__email_txt="Hi {% include '_part.txt' %}",
        a__email_html="<p>Hi</p>",
        a__sms_txt="Order {{ data.order }}{{ data.bom }}",
        a__webhook_json='{"a": {{ data.order }}}',
    )
    (folder / "_part.txt").write_text("{{ data.order }}")
    for file in folder.rglob("*.*"):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    renderer = Renderer(folder)
    renderer.check()
    request = send_request(by_email(), event(type="a", data={"order": "42", "bom": "\ufeff"}))
    mail = await renderer.email(request)
    assert (mail.subject, mail.text, mail.html) == ("Order 42", "Hi 42\n", "<p>Hi</p>")
    assert await renderer.text(request, "sms.text") == "Order 42"
    assert await renderer.text(request, "webhook.json") == '{"a": "42"}'


def test_control_characters_and_direction_marks_are_removed() -> None:
    assert printable("a\x00b\x1b[2J\r\nc\t\u202ed\x85") == "ab[2J\nc\td"
    assert one_line(" a\r\n\u2029b\x00c ", limit=10) == "a b c"


def test_the_documentation_names_every_filter_function_and_template_file() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "write-templates.md").read_text()
    environment = TemplateEnvironment()
    for name in (
        *environment.filters,
        *environment.globals,
        *FILES,
        *FILE_OF,
    ):
        assert f"`{name}`" in page, name
