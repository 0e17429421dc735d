"""PushChannel: renders a push, and sends it over the service that its target names."""

from activities.providers.answers import blocked, suppressed_outcome
from activities.push.apns import Apns
from activities.push.content import push_content
from activities.push.fcm import Fcm
from activities.push.web import WebPush
from activities.rendering.renderer import Renderer
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
from bellwire.sends import SendRequest
from bellwire.targets import PushTarget


class PushChannel:
    """Pushes to browsers, by FCM, and to Apple's devices."""

    def __init__(self, renderer: Renderer, web: WebPush, fcm: Fcm, apns: Apns) -> None:
        self._renderer, self._web, self._fcm, self._apns = renderer, web, fcm, apns

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the push once. Whatever a push service does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, PushTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await push_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        if target.web is not None:
            return await self._web.send(request, target.web, target.account, content)
        if target.fcm is not None:
            return await self._fcm.send(request, target.fcm, target.account, content)
        return await self._apns.send(request, target, content)
