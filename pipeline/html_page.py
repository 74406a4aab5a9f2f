"""HTML pages that need nothing else, and run no script: the sheet's and the audit's."""

import base64
import hashlib
import html


def lone_page(title: str, style: str, body: str) -> bytes:
    """Return a page with its style inside. Its policy lets it load nothing but pictures that it holds itself.

    `title` is plain text, `style` is CSS, `body` is HTML.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'sha256-{digest}'">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
""".encode()
