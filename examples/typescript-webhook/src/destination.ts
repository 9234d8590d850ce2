export interface Destination {
  url: URL;
  /** Without the query, which often carries a token. */
  shown: string;
}

/** Where to post to; throws a text that says why it cannot be posted to. */
export function parseDestination(text: string): Destination {
  if (!/^[\x21-\x7e]*$/.test(text)) throw "has a space or another character that must be percent-encoded in a URL";
  if (!text.includes("://")) throw "is no URL: it has no ://";
  const name = text.split("://")[0]?.toLowerCase();
  if (name !== "http" && name !== "https") throw `has the scheme ${name}: http and https are possible`;
  if (!/^[^:]*:\/\/[^/?#:]/.test(text)) throw "names no host";
  const url = new URL(text);
  if (url.username || url.password) throw "has a user name or password: grant a secret to the publisher instead";
  return { url, shown: url.origin + url.pathname };
}
