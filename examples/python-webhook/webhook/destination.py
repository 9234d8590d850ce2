from dataclasses import dataclass


@dataclass
class Destination:
    """Where to post to: the parts of an http or https URL."""

    https: bool
    authority: str
    path_with_query: str

    @classmethod
    def parse(cls, url: str) -> "Destination":
        scheme, found, rest = url.partition("://")
        scheme = scheme.lower()
        if not found:
            raise ValueError("is no URL: it has no ://")
        if scheme not in ("http", "https"):
            raise ValueError(f"has the scheme {scheme}: http and https are possible")
        if not all("!" <= character <= "~" for character in url):
            raise ValueError("has a space or another character that must be percent-encoded in a URL")
        rest = rest.partition("#")[0]
        end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        authority, path = rest[:end], rest[end:]
        if not authority or authority.startswith(":"):
            raise ValueError("names no host")
        if "@" in authority:
            raise ValueError("has a user name or password: grant a secret to the publisher instead")
        return cls(scheme == "https", authority, path if path.startswith("/") else f"/{path}")

    def __str__(self) -> str:
        """Without the query, which often carries a token."""
        path = self.path_with_query.partition("?")[0]
        return f"{'https' if self.https else 'http'}://{self.authority}{path}"
