"""Configuration of accounts with Aliyun and Tencent Cloud, and of their templates.

docs/how-to/send-sms-in-mainland-china.md has an example. An SMS is a template that the provider has approved, with parameters.
Each template of Bellwire is mapped to one of the provider's by its name: the subscription's template, or the event's type.
"""

from typing import Annotated, Literal

from pydantic import Field

from activities.sms.config_fields import ProviderName, SecretName, Url
from activities.sms.mainland.parameters import Expression
from bellwire.models import StrictInput

#: The mapping for templates that have none of their own.
DEFAULT = "default"

SignName = Annotated[str, Field(min_length=1, max_length=64)]
Prefix = Annotated[str, Field(pattern=r"^\+[0-9]{1,6}$")]


class NamedTemplate(StrictInput):
    """A template of Aliyun. `params` has an expression for each parameter by name."""

    template: Annotated[str, Field(min_length=1, max_length=64)]
    params: dict[str, Expression] = Field(default_factory=dict)
    #: In place of the account's.
    sign_name: SignName | None = None


class OrderedTemplate(StrictInput):
    """A template of Tencent Cloud. `params` has the expressions in order."""

    template: Annotated[str, Field(min_length=1, max_length=64)]
    params: tuple[Expression, ...] = ()
    #: In place of the account's.
    sign_name: SignName | None = None


class _Account(StrictInput):
    sign_name: SignName
    #: Seconds for one call.
    timeout: float = Field(default=15, ge=0.1, le=60)
    #: Beginnings of the numbers that it sends to. Others are left to other providers.
    numbers: tuple[Prefix, ...] = Field(default=("+86",), min_length=1)


class AliyunConfig(_Account):
    """An account with Aliyun."""

    name: ProviderName = "aliyun"
    access_key_id: Annotated[str, Field(pattern=r"^[\w.-]{1,128}$")]
    #: The environment variable that holds the access key's secret.
    access_key_secret: SecretName
    url: Url = "https://dysmsapi.aliyuncs.com"
    templates: dict[str, NamedTemplate] = Field(min_length=1)
    #: Seconds after which an SMS that Aliyun does not list counts as not sent, and may be sent again.
    absent_after: float = Field(default=300, ge=0, le=30 * 86_400)


class TencentConfig(_Account):
    """An account with Tencent Cloud."""

    name: ProviderName = "tencent"
    secret_id: Annotated[str, Field(pattern=r"^[\w.-]{1,128}$")]
    #: The environment variable that holds the key.
    secret_key: SecretName
    app_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    region: Literal["ap-guangzhou", "ap-beijing", "ap-nanjing"] = "ap-guangzhou"
    url: Url = "https://sms.tencentcloudapi.com"
    templates: dict[str, OrderedTemplate] = Field(min_length=1)
    #: The same. Tencent lists an SMS only once the carrier has reported on it, for which it takes up to 72 hours.
    absent_after: float = Field(default=72 * 3600, ge=0, le=7 * 86_400)
