"""Sign-ins that are refused, as the audit log has them: so many and no more, whoever tries however often."""

import threading

from cachetools import TTLCache

from jobs.audit import REFUSED, Actor, Audit
from jobs.credentials import Token
from jobs.keys import Keys
from jobs.opt_outs import WITHOUT_KEY

# Of each key, and of all that is no key of ours together, one in so long is written down: who tries keys by the
# thousand shall not fill the disk. Each try has its line in the service's own log.
ONE_IN_S = 60.0
KEYS_KEPT = 1000


class SignIns:
    """Writes down what was refused."""

    def __init__(self, keys: Keys, audit: Audit) -> None:
        self._keys = keys
        self._audit = audit
        self._written: TTLCache[str, bool] = TTLCache(KEYS_KEPT, ONE_IN_S)
        self._turn = threading.Lock()

    def refused(self, shown: str, request_id: str | None) -> None:
        """Note that `shown` let nobody in. Only the public part of a key that was given out once is kept of it.

        Blocks for a few milliseconds.
        """
        token = Token.read(shown)
        key = None if token is None else self._keys.find(token.id)
        prefix = None if key is None else key.prefix
        with self._turn:
            if (prefix or "") in self._written:
                return
            self._written[prefix or ""] = True
        self._audit.write(Actor(WITHOUT_KEY, request_id), "sign-in", prefix, REFUSED)
