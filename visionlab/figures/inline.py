"""The little Markdown that titles and notes hold, as HTML."""

import re
from html import escape


def inline(text: str) -> str:
    """Code, bold and links; everything else is escaped.

    Example:
        >>> inline("a < `b`")
        'a &lt; <code>b</code>'
    """
    out = escape(text, quote=False)
    out = re.sub(r"`([^`]+)`", r"<code>\1</code>", out)
    out = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", out)
    return re.sub(r"\[([^\]]+)\]\((https://[^)\s]+)\)", r'<a href="\2">\1</a>', out)
