"""Events as API Gateway, Function URLs and load balancers send them, around one request.

The shapes are those of AWS's documentation, with the fields that a handler may look at.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import Any

PATH = "/wechatpay/notify"
HTTP_API_CONTEXT = {
    "accountId": "123456789012",
    "apiId": "api-id",
    "domainName": "api-id.execute-api.eu-west-1.amazonaws.com",
    "requestId": "JKJaXmPLvHcESHA=",
    "routeKey": "POST /wechatpay/notify",
    "stage": "$default",
}
FUNCTION_URL_CONTEXT = HTTP_API_CONTEXT | {
    "apiId": "url-id",
    "domainName": "url-id.lambda-url.eu-west-1.on.aws",
    "routeKey": "$default",
}


def rest_api(headers, body, *, method="POST", path=PATH, encoded=False) -> dict[str, Any]:
    return {
        "resource": "/wechatpay/notify",
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": multi(headers),
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "123456",
            "resourcePath": "/wechatpay/notify",
            "httpMethod": method,
            "path": f"/prod{path}",
            "stage": "prod",
            "apiId": "api-id",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
        },
    } | carried(body, encoded=encoded)


def http_api(
    headers, body, *, method="POST", path=PATH, encoded=False, context=None
) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.lower(): ",".join(values) for name, values in multi(headers).items()},
        "requestContext": (context or HTTP_API_CONTEXT)
        | {"http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4"}},
    } | carried(body, encoded=encoded)


def function_url(headers, body, **request) -> dict[str, Any]:
    return http_api(headers, body, context=FUNCTION_URL_CONTEXT, **request)


def alb_single(headers, body, *, method="POST", path=PATH, encoded=False) -> dict[str, Any]:
    return alb(method, path) | {"headers": lower(headers)} | carried(body, encoded=encoded)


def alb_multi(headers, body, *, method="POST", path=PATH, encoded=False) -> dict[str, Any]:
    many = multi((name.lower(), value) for name, value in headers)
    return alb(method, path) | {"multiValueHeaders": many} | carried(body, encoded=encoded)


def alb(method: str, path: str) -> dict[str, Any]:
    group = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/notify/6d0ecf831eec"
    return {
        "requestContext": {"elb": {"targetGroupArn": group}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
    }


def carried(body: bytes | None, *, encoded: bool) -> dict[str, Any]:
    if body is None:
        return {"body": None, "isBase64Encoded": False}
    text = base64.b64encode(body).decode() if encoded else body.decode()
    return {"body": text, "isBase64Encoded": encoded}


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def multi(headers) -> dict[str, list[str]]:
    values = defaultdict(list)
    for name, value in headers:
        values[name].append(value)
    return dict(values)


KINDS = {
    "rest_api": rest_api,
    "http_api": http_api,
    "function_url": function_url,
    "alb_single": alb_single,
    "alb_multi": alb_multi,
}


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    """The headers of an answer, whichever of the two ways it says them in."""
    if "multiValueHeaders" in answer:
        return {name: values[0] for name, values in answer["multiValueHeaders"].items()}
    return answer["headers"]
