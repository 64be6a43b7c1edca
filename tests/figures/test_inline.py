"""Code, bold and links become HTML; all else is text."""

from visionlab.figures.inline import inline


def test_inline_markdown_becomes_html_and_nothing_else_does():
    assert inline("`a<b` and **c** [d](https://e.f/g) <script>") == (
        '<code>a&lt;b</code> and <b>c</b> <a href="https://e.f/g">d</a> &lt;script&gt;'
    )
    assert inline("[x](javascript:alert)") == "[x](javascript:alert)"
