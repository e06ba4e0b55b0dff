"""Credentials inside URIs: recognised, refused where somebody gives them, taken out of whatever is written or said.

A secret is `user:password@` before a host or bucket (any user alone for http: it is a token), and the value of a query
that signs or authorises (`X-Amz-Signature`, `sig`, `token`, ...). Pure; everything that opens a URI asks `refusal`, and
everything that writes names or errors which others chose passes them through `redacted`.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_SIGNS = (
    *("x-amz-[a-z-]*", "x-goog-[a-z-]*", "x-ms-[a-z-]*", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"),
    *("signature", "sig", "token", "[a-z_-]*[_-]token", "api[_-]?key", "access[_-]?key(?:[_-]?id)?", "secret"),
    *("[a-z_-]*[_-]secret", "secret[a-z_-]*", "password", "passwd", "pwd", "auth", "authorization", "credentials?"),
)
_USER = re.compile(
    r"(?<=://)(?:[^\s/:@\"'<>]*:(?![:/]|\d{1,5}(?:[/?#\s\"'<>]|$))[^\s@\"'<>]+(?=@))"  # a secret key may have slashes
    r"|(?<=http://)[^\s/:@?#\"'<>]+(?=@)|(?<=https://)[^\s/:@?#\"'<>]+(?=@)",
    re.IGNORECASE,
)
_QUERY = re.compile(
    rf"((?:[?&;]|\\u0026|%26)(?:{'|'.join(_SIGNS)})=)(?!{re.escape(HIDDEN)})[^&#\s\"'<>\\]+", re.IGNORECASE
)


def redacted(text: str) -> str:
    """`text` with each secret as `***`; honest text as it is."""
    if "=" not in text and "@" not in text:
        return text
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN, text))


def refusal(text: str, what: str = "") -> str | None:
    """Why a URI, or text with URIs in it, is not taken, and how to give its credentials; None where it has none.

    what: the line begins with it, else with the URI, the secret taken out.
    """
    clean = redacted(text)
    if clean == text:
        return None
    return (
        f"{what or clean} contains credentials, which would be kept in files and logs. Give them in the environment "
        "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and "
        "AZURE_STORAGE_ACCOUNT_KEY, or the workload's identity) and the URI without them; what only a signed address "
        "opens, download first"
    )
