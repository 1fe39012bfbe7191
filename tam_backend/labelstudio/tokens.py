"""The token of a Label Studio: how calls are authorised with it, and kept authorised.

A legacy token goes along as it is. A personal access token is a JWT that does nothing but buy access tokens, each good
for some minutes (300 s in Label Studio 1.23.2).
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from tam_backend.errors import LabelStudioError
from tam_backend.labelstudio.transport import ask_label_studio, server_time

_TIMEOUT = (5.0, 20.0)
#: An access token is renewed this long before it ends, or when four fifths of its life are over if that is later.
_MARGIN_SECONDS = 30.0
#: Taken for the life of an access token that does not say.
_UNKNOWN_LIFE_SECONDS = 60.0
#: After an exchange that failed, the next call gets the same error for so long, instead of waiting as well.
_FAILURE_SECONDS = 2.0
_USABLE = re.compile(r"[\x21-\x7e]{1,8192}")

_HOW_TO_GET_ONE = (
    "set TAM_LABEL_STUDIO_TOKEN (with TAM_LABEL_STUDIO_URL) to a personal access token (Account & Settings > Personal "
    "Access Token)"
)


def is_usable(token: str) -> bool:
    """Whether a token can stand in a header at all."""
    return bool(_USABLE.fullmatch(token))


class Credentials:
    """Authorises calls to one Label Studio. Thread-safe; one exchange at a time, however many wait for it.

    confirmed: Label Studio took the token at least once. refused: it did not, the last time.
    """

    def __init__(self, url: str, token: str) -> None:
        self.confirmed = False
        self.refused = False
        self._url = url
        self._token = token
        self._claims = _claims(token)
        self._access = ""
        self._renew_at = 0.0
        self._failure: tuple[float, str] = (float("-inf"), "")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<credentials for {self._url}>"

    @property
    def _personal(self) -> bool:
        return self._claims is not None and self._claims.get("token_type") != "access"

    def headers(self) -> dict[str, str]:
        """What a request needs; may ask Label Studio for an access token first. Raises LabelStudioError."""
        if not self._token:
            return {}
        if not is_usable(self._token):
            raise LabelStudioError("the token for Label Studio has characters that no token has; set it anew")
        if self._claims is None:
            return {"Authorization": f"Token {self._token}"}
        if not self._personal:
            return {"Authorization": f"Bearer {self._token}"}
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._exchange()
            return {"Authorization": f"Bearer {self._access}"}

    def renew(self, used: Mapping[str, str]) -> bool:
        """After a 401 to a request with the headers ``used``: whether it is worth sending again with new ones."""
        if not self._personal:
            return False
        with self._lock:
            if used.get("Authorization") == f"Bearer {self._access}":
                self._renew_at = 0.0  # others who saw the same 401 then find the new one
        return True

    def note(self, status: int) -> None:
        """What Label Studio answered to a request that carried the headers."""
        if 200 <= status < 300 and self._token:
            self.confirmed, self.refused = True, False
        elif status == 401:
            self.refused = True

    def refusal(self) -> str:
        """What to tell people about a 401."""
        where = f"Label Studio at {self._url}"
        if not self._token:
            return f"{where} wants a token, and none is known: {_HOW_TO_GET_ONE}"
        if self._personal:
            return f"{where} refuses the access token that it gave for the personal access token (401): make a new one"
        if self._claims is not None:
            return (
                f"{where} refuses the token (401): it is an access token, which ends after minutes; {_HOW_TO_GET_ONE}"
            )
        return (
            f"{where} refuses the token (401). It is a legacy token, and those are off in new organisations: "
            f"{_HOW_TO_GET_ONE}, or switch legacy tokens on (Organization > Access Token Settings)"
        )

    def _exchange(self) -> None:
        failed_at, message = self._failure
        if time.monotonic() - failed_at < _FAILURE_SECONDS:
            raise LabelStudioError(message)
        began = time.monotonic()
        try:
            self._access, life = self._new_access_token()
        except LabelStudioError as e:
            self._failure = (time.monotonic(), str(e))
            raise
        self._renew_at = began + max(life - _MARGIN_SECONDS, 0.8 * life)

    def _new_access_token(self) -> tuple[str, float]:
        """An access token and the seconds it is good for."""
        url, body = f"{self._url}/api/token/refresh/", json.dumps({"refresh": self._token}).encode()
        status, headers, answer = ask_label_studio("POST", url, {"Content-Type": "application/json"}, _TIMEOUT, body)
        if status in (400, 401, 403):
            self.refused = True
            raise LabelStudioError(
                f"Label Studio at {self._url} refuses the personal access token ({status}): it was revoked, has "
                f"ended, was copied in part, or is another Label Studio's; {_HOW_TO_GET_ONE} that is new"
            )
        try:
            access = json.loads(answer)["access"] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            access = None
        if not isinstance(access, str) or not is_usable(access):
            raise LabelStudioError(
                f"Label Studio at {self._url} gave no access token for the personal access token ({status})"
            )
        return access, _life(access, headers)


def _life(access: str, headers: Mapping[str, str]) -> float:
    """Seconds from now on, by Label Studio's clock alone: ours may differ."""
    claims = _claims(access) or {}
    expires = claims.get("exp")
    if not isinstance(expires, int | float):
        return _UNKNOWN_LIFE_SECONDS
    issued = [i for i in (claims.get("iat"), server_time(headers)) if isinstance(i, int | float) and i < expires]
    return min((expires - i for i in issued), default=_UNKNOWN_LIFE_SECONDS)


def _claims(token: str) -> dict[str, Any] | None:
    """What a JWT says, unverified (only Label Studio can); None if it is none."""
    parts = token.split(".")
    if len(parts) not in (2, 3):  # two: Label Studio's list shows personal tokens without their end
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None
