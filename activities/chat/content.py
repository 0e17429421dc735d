"""ChatContent: what is written into a chat, rendered in the provider's own markup."""

from dataclasses import dataclass

from activities.rendering.renderer import Renderer
from activities.rendering.sandbox.markup import MARKUPS
from activities.rendering.text import one_line
from bellwire.sends import SendRequest

#: Longest title, in characters.
MAX_TITLE = 140


@dataclass(frozen=True, kw_only=True)
class ChatContent:
    """A message: a title in one line of plain text, and a text in the provider's markup, in which values are escaped."""

    title: str
    text: str
    #: The title in the provider's markup.
    escaped_title: str

    @property
    def whole(self) -> str:
        """Title and text in the provider's markup, where a card is not shown."""
        return f"{self.escaped_title}\n{self.text}".strip()


async def chat_content(renderer: Renderer, request: SendRequest) -> ChatContent:
    """Render the templates `title` and `text` of the request's channel. Raises TemplateInvalid."""
    channel = request.subscription.channel
    texts = await renderer.texts(request, (f"{channel}.title", f"{channel}.text"))
    title = one_line(texts[f"{channel}.title"], limit=MAX_TITLE) or request.event.type[:MAX_TITLE]
    return ChatContent(title=title, text=texts[f"{channel}.text"], escaped_title=MARKUPS[f"{channel}.text"](title))
