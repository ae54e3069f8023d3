"""Receive WeChat Pay's notifications in an AWS Lambda function.

::

    handler = notify_handler(lambda: Kit.from_env(plugins=[Fulfilment()], receive_only=True))

behind API Gateway (REST or HTTP API), a Function URL or an Application Load Balancer; which one
is read off each event. The function and the process that places orders share one store, or a
plugin answers ``expected_order``. Secrets may be references, see :class:`Environment`; a whole
deployment stands in examples/aws_lambda.

*Logs.* Choose Lambda's JSON log format: each line of the kit is then one JSON object, its fields
under ``wechatpay_kit``, and a metric filter counts what it likes:
``{ $.wechatpay_kit.status >= 500 }``.
"""

from __future__ import annotations

from .notify import NotifyHandler, notify_handler
from .secrets import Environment

__all__ = ["Environment", "NotifyHandler", "notify_handler"]
