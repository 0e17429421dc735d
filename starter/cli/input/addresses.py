"""The argument ADDRESS: who is suppressed or erased."""

ADDRESS_HELP = (
    "ann@example.com or +14155550123; with --channel also account/address of chats, WeChat and push, or the address alone "
    "for the account default; of a browser, the endpoint of its push subscription."
)
