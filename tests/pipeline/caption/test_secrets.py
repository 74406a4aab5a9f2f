import pytest

from pipeline.caption.secrets import passwords, without_userinfo


@pytest.mark.parametrize(
    ("url", "secret", "shown"),
    [
        ("https://host/v1", None, "https://host/v1"),
        ("https://me:a@b@host:80/v1", "me:a@b@", "https://host:80/v1"),
        ("me:word@host/v1", "me:word@", "host/v1"),
        ("https://host/v1/@me", None, "https://host/v1/@me"),
    ],
)
def test_a_url_is_shown_without_name_and_password(url: str, secret: str | None, shown: str) -> None:
    assert (secret in passwords(url)) == (secret is not None)
    assert without_userinfo(url) == shown
