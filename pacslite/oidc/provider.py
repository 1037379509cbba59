"""One OpenID provider (OpenID Connect Core 1.0, code flow with PKCE) by Authlib: where to send a browser, and whom it brings back.

Nothing is followed elsewhere, every answer has a bound, and only asymmetric signatures count: a token signed by a shared secret, or not
at all, is refused whatever the provider says that it supports.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from pacslite.errors import PeerError, Unauthenticated
from pacslite.oidc.attempt import Attempt

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_TIMEOUT_S = 10
_KNOWN_FOR_S = 3600
# Keys are asked for anew when a token names one that is not known, but not for every token that somebody makes up.
_KEYS_AGAIN_AFTER_S = 5
_LEEWAY_S = 60
_MOST_BYTES = 1024 * 1024


class Provider:
    """The provider of one issuer, for threads; what it says of itself is kept for an hour."""

    def __init__(self, issuer: str, client_id: str, client_secret: str | None, scopes: str) -> None:
        self.issuer = issuer
        self._client_id, self._client_secret, self._scopes = client_id, client_secret, scopes
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._metadata_at = self._keys_at = float("-inf")
        self._keys: KeySet | None = None

    def authorization_url(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser goes; raises PeerError."""
        with self._session(redirect_uri) as session:
            url, _ = session.create_authorization_url(
                self._told("authorization_endpoint"), state=attempt.state, code_verifier=attempt.verifier, nonce=attempt.nonce
            )
        return str(url)

    def end_session_url(self, back_to: str) -> str | None:
        """Where a browser ends its login with the provider (RP-Initiated Logout 1.0); None when it has no such place."""
        endpoint = self._described().get("end_session_endpoint")
        if not isinstance(endpoint, str):
            return None
        request = requests.Request("GET", endpoint, params={"client_id": self._client_id, "post_logout_redirect_uri": back_to})
        return request.prepare().url

    def claims(self, code: str, iss: str | None, attempt: Attempt, redirect_uri: str) -> dict[str, Any]:
        """What the provider says of the user, for a code; raises Unauthenticated, PeerError."""
        supported = self._described().get("authorization_response_iss_parameter_supported")
        if (iss is not None or supported) and iss != self.issuer:  # RFC 9207 2.4: an answer of another provider
            raise Unauthenticated("The answer is of another provider.")
        try:
            with self._session(redirect_uri) as session:
                token = session.fetch_token(
                    self._told("token_endpoint"), code=code, code_verifier=attempt.verifier, timeout=_TIMEOUT_S, allow_redirects=False
                )
        except (requests.RequestException, ValueError) as error:
            raise PeerError(f"the OpenID provider does not answer: {type(error).__name__}") from None
        except AuthlibBaseError as error:
            raise Unauthenticated(f"The provider refused the login ({error.error}).") from None
        return self._checked(token, attempt.nonce)

    def _checked(self, token: Any, nonce: str) -> dict[str, Any]:
        """The claims of the ID token (Core 3.1.3.7)."""
        text = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise Unauthenticated("The provider gave no ID token.")
        options = {"iss": {"essential": True, "value": self.issuer}, "aud": {"essential": True, "value": self._client_id}}
        known = {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")}
        try:
            decoded = self._decoded(text)
            claims = CodeIDToken(decoded.claims, decoded.header, options, known)
            claims.validate(leeway=_LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError) as error:
            raise Unauthenticated(f"The ID token does not count ({type(error).__name__}).") from None
        return dict(claims)

    def _decoded(self, text: str) -> jwt.Token:
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        try:
            return jwt.decode(text, self._key_set(again=False), registry=registry)
        except InvalidKeyIdError:
            return jwt.decode(text, self._key_set(again=True), registry=registry)

    def _key_set(self, again: bool) -> KeySet:
        """The provider's keys; asked for anew where one is missing, as after their rotation."""
        with self._lock:
            age = time.monotonic() - self._keys_at
            if self._keys is not None and age < (_KEYS_AGAIN_AFTER_S if again else _KNOWN_FOR_S):
                return self._keys
        keys = KeySet.import_key_set(_fetched(self._told("jwks_uri")))  # type: ignore[arg-type]
        with self._lock:
            self._keys, self._keys_at = keys, time.monotonic()
        return keys

    def _told(self, name: str) -> str:
        value = self._described().get(name)
        if not isinstance(value, str):
            raise PeerError(f"the OpenID provider names no {name}")
        return value

    def _described(self) -> dict[str, Any]:
        """What the provider says of itself (Discovery 1.0); its issuer has to be the one that is set."""
        with self._lock:
            if self._metadata and time.monotonic() - self._metadata_at < _KNOWN_FOR_S:
                return self._metadata
        metadata = _fetched(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if metadata.get("issuer") != self.issuer:
            raise PeerError("the OpenID provider calls itself by another issuer than oidc_issuer")
        with self._lock:
            self._metadata, self._metadata_at = metadata, time.monotonic()
        return metadata

    def _session(self, redirect_uri: str) -> OAuth2Session:
        method = "client_secret_basic" if self._client_secret else "none"
        return OAuth2Session(
            self._client_id,
            self._client_secret,
            token_endpoint_auth_method=method,
            scope=self._scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )


def _fetched(url: str) -> dict[str, Any]:
    """A JSON object of the provider."""
    try:
        with requests.get(url, timeout=_TIMEOUT_S, allow_redirects=False, stream=True) as answer:
            data = answer.raw.read(_MOST_BYTES, decode_content=True)
            if answer.status_code != 200:
                raise PeerError(f"the OpenID provider answers {answer.status_code}")
        found = json.loads(data)
    except (requests.RequestException, OSError, ValueError) as error:
        raise PeerError(f"the OpenID provider does not answer: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise PeerError("the OpenID provider answers with no JSON object")
    return found
