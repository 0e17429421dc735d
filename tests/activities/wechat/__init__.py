"""Tests of the channel wechat."""
