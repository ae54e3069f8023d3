"""Receive WeChat Pay's notifications in a Flask app: ``POST …/notify``, raw bytes to the receiver.

Knows Flask and WSGI; knows nothing of signatures, orders or the merchant. As a blueprint::

    app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")

or as an extension, for application factories::

    wechatpay = WeChatPay()

    def create_app():
        app = Flask(__name__)
        wechatpay.init_app(app, Kit.from_env(plugins=[Fulfilment()]))
        return app

*CSRF.* WeChat Pay has no token, its signature proves more than one. With Flask-WTF say
``csrf.exempt(blueprint)``, or ``csrf.exempt("wechatpay_kit_flask.notify")`` with the extension.

*Login and other middleware.* The app's ``before_request`` functions run for this view too. Let
them pass the endpoint by its name, before they look at the body: ``if request.endpoint ==
"wechatpay.notify": return None``. One that answers (a redirect to a login page) loses every
notification; one that reads ``request.stream`` leaves no bytes to verify.

*Body limit.* The receiver's (``Kit(max_body=…)``, 2 MiB), held while reading, chunked or not. The
app's ``MAX_CONTENT_LENGTH`` is for its forms and does not apply: a smaller one would lose money.
A chunked body needs a server that ends the stream, as gunicorn, waitress and mod_wsgi do.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, cast

from wechatpay_kit import ConfigError

try:
    from flask import Blueprint, Response, current_app, request
except ModuleNotFoundError as error:
    if error.name != "flask":
        raise
    raise ImportError(
        "wechatpay_kit_flask needs flask, which is not installed: "
        "pip install 'wechatpay-kit[flask]'",
        name="flask",
    ) from None
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import get_content_length, get_input_stream

if TYPE_CHECKING:
    from typing import IO

    from flask import Flask
    from flask.sansio.blueprints import BlueprintSetupState

    from wechatpay_kit import Kit

__all__ = ["WeChatPay", "notify_blueprint"]

_EXTENSION = "wechatpay_kit"
_CHUNK = 65536  # bytes a read


def notify_blueprint(kit: Kit, name: str = "wechatpay") -> Blueprint:
    """A blueprint with the one view ``POST /notify`` (endpoint ``{name}.notify``) for ``kit``.

    A second merchant takes another ``name`` and another ``url_prefix``. Registering it raises
    :class:`ConfigError` where no plugin implements ``on_paid`` or the address is taken, and
    ``ValueError`` (Flask's) where the name is.
    """
    blueprint = Blueprint(name, __name__)
    blueprint.record(lambda _state: kit.receiver.check_ready())
    blueprint.record(_refuse_taken_address)

    def notify() -> Response:
        try:
            body = _raw_body(kit.receiver.max_body)
        except Exception as error:  # noqa: BLE001 - servers raise errors of their own here
            current_app.logger.warning("a delivery's body did not arrive whole: %r", error)
            return Response(status=400)
        answer = kit.receiver.receive(request.headers.items(), body)
        response = Response(answer.body, answer.status)
        response.headers.clear()  # Flask's text/html; an empty 204 has no type
        response.headers.extend(answer.headers)
        return response

    blueprint.add_url_rule(
        "/notify", view_func=notify, methods=["POST"], provide_automatic_options=False
    )
    return blueprint


class WeChatPay:
    """The extension: one object for all apps that a factory makes, each with a kit of its own.

    ``kit`` may be given here, or to each :meth:`init_app`. ``name`` tells a second merchant's
    apart. An app holds its kits in ``app.extensions["wechatpay_kit"]``, by name.
    """

    def __init__(self, kit: Kit | None = None, *, name: str = "wechatpay") -> None:
        self.name = name
        self._kit = kit

    def init_app(
        self, app: Flask, kit: Kit | None = None, *, url_prefix: str = "/wechatpay"
    ) -> None:
        """Serve ``POST {url_prefix}/notify`` on ``app``.

        Raises :class:`ConfigError` where there is no kit, no plugin implements ``on_paid``, or the
        name or the address is registered on this app already.
        """
        kit = kit or self._kit
        if kit is None:
            raise ConfigError(
                "the extension has no kit; give it one: WeChatPay(kit) or init_app(app, kit)"
            )
        if self.name in app.blueprints:
            raise ConfigError(
                f"{self.name} is registered on this app already; "
                "for a second merchant use another name: WeChatPay(kit, name=…)"
            )
        app.register_blueprint(notify_blueprint(kit, self.name), url_prefix=url_prefix)
        app.extensions.setdefault(_EXTENSION, {})[self.name] = kit

    @property
    def kit(self) -> Kit:
        """The current app's kit; ``RuntimeError`` outside an app, or where init_app was not run."""
        kits = current_app.extensions.get(_EXTENSION, {})
        if self.name not in kits:
            raise RuntimeError(f"{self.name} is not registered on this app; call init_app(app)")
        return cast("Kit", kits[self.name])


def _refuse_taken_address(state: BlueprintSetupState) -> None:
    """Two kits at one address: the second merchant's money would be refused as another's."""
    path = f"{(state.url_prefix or '').rstrip('/')}/notify"
    for rule in state.app.url_map.iter_rules():
        if rule.rule == path and "POST" in (rule.methods or ()):
            raise ConfigError(
                f"POST {path} is {rule.endpoint} already; "
                "give each merchant an address of its own by url_prefix="
            )


def _raw_body(limit: int) -> bytes:
    """The bytes as they came, or ``limit + 1`` of them where there are more.

    Read from the WSGI stream before anything parses it, and left where Flask looks for it, so that
    what reads the request afterwards neither finds nothing nor waits for more.
    """
    if "stream" not in request.__dict__:  # else a before_request has read it, and Flask kept it
        request.stream = BytesIO(_read(get_input_stream(request.environ), limit + 1))
    return request.get_data()


def _read(stream: IO[bytes], most: int) -> bytes:
    """At most ``most`` bytes; :class:`ClientDisconnected` where fewer came than announced."""
    body = bytearray()
    while len(body) < most and (chunk := stream.read(min(most - len(body), _CHUNK))):
        body += chunk
    announced = get_content_length(request.environ)
    if announced is not None and len(body) < min(announced, most):
        raise ClientDisconnected
    return bytes(body)
