"""The channel wechat."""
