/** Where to post to: an http or https URL, and how to show it: without the query, which often carries a token. */
export function parseDestination(text) {
  if (!/^[\x21-\x7e]*$/.test(text)) throw "has a space or another character that must be percent-encoded in a URL";
  if (!text.includes("://")) throw "is no URL: it has no ://";
  const name = text.split("://")[0].toLowerCase();
  if (name !== "http" && name !== "https") throw `has the scheme ${name}: http and https are possible`;
  if (!/^[^:]*:\/\/[^/?#:]/.test(text)) throw "names no host";
  const url = new URL(text);
  if (url.username || url.password) throw "has a user name or password: grant a secret to the publisher instead";
  return { url, shown: url.origin + url.pathname };
}
