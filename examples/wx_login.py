"""From ``wx.login`` to an openid: the exchange that the shop's own server makes.

An openid is a user under one appid. Ask with the appid that the order is placed with, or WeChat
Pay refuses the order. ``APP_SECRET`` is the mini-program's (not a ``WECHATPAY_*`` secret) and
never leaves the server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from wechatpay_kit import Merchant

CODE2SESSION = "https://api.weixin.qq.com/sns/jscode2session"


def openid_of(code: str, merchant: Merchant) -> str:
    """The openid of the user whose ``wx.login`` gave ``code`` (good once, for five minutes)."""
    if not merchant.is_official:
        return "oSandboxPayer"  # a sandbox has no users, so every code is this one
    query = {
        "appid": merchant.appid,
        "secret": os.environ["APP_SECRET"],
        "js_code": code,
        "grant_type": "authorization_code",
    }
    try:
        answer = requests.get(CODE2SESSION, params=query, timeout=5).json()
    except requests.RequestException as error:  # its text has the URL, and the secret in it
        raise ConnectionError(f"code2Session: {type(error).__name__}") from None
    if "openid" not in answer:
        raise PermissionError(f"code2Session: {answer.get('errcode')} {answer.get('errmsg')}")
    return str(answer["openid"])
