"""Passwords out of what is shown: settings, errors and log lines.

What is secret is told by its kind and not by its setting's name: the user and password of any URL, the values
in a URL's query whose names speak of a secret, every API key, webhook endpoint's secret and share's token. So a
setting that is added later is masked as well.
"""

import re

from jobs.credentials import TOKEN

MASK = "***"
# Up to the last `@`, since a password may hold one, or a `/`, that nobody wrote as its percent code.
_USERINFO = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]*://)[^\s'\"<>]*@")
_QUERY = re.compile(
    r"([?&;][^\s=&?'\"<>]*(?:password|passwd|pwd|secret|token|key|signature|credential)[^\s=&'\"<>]*=)[^\s&'\"<>]+",
    re.IGNORECASE,
)
_SHARE = re.compile(r"dass_[A-Za-z0-9_-]{43}")
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/_-]{16,}=*")


def masked(text: str) -> str:
    """`text` with the credentials of every URL in it and the secret of every API key, webhook and share replaced."""
    text = _WEBHOOK_SECRET.sub(f"whsec_{MASK}", text)
    text = _SHARE.sub(f"dass_{MASK}", text)
    text = TOKEN.sub(rf"\g<1>_\g<2>_{MASK}", text)
    return _QUERY.sub(rf"\g<1>{MASK}", _USERINFO.sub(rf"\g<1>{MASK}@", text))
