/** Where to post to: the parts of an http or https URL, or a text that says why there are none. */
export function parseDestination(url) {
  const parts = /^([^:]*):\/\/([^/?#]*)([^#]*)/.exec(url);
  if (!parts) return "is no URL: it has no ://";
  const [, scheme, authority, rest] = parts;
  const name = scheme.toLowerCase();
  if (name !== "http" && name !== "https") return `has the scheme ${name}: http and https are possible`;
  if (!/^[\x21-\x7e]*$/.test(url)) return "has a space or another character that must be percent-encoded in a URL";
  if (!authority || authority.startsWith(":")) return "names no host";
  if (authority.includes("@")) return "has a user name or password: grant a secret to the publisher instead";
  const pathWithQuery = rest.startsWith("/") ? rest : `/${rest}`;
  // Shown without the query, which often carries a token.
  const shown = `${name}://${authority}${pathWithQuery.split("?")[0]}`;
  return { https: name === "https", authority, pathWithQuery, shown };
}
