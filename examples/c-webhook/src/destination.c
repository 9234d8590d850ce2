#include "destination.h"
#include <string.h>
#include <strings.h>

const char *parse_destination(const char *url, struct destination *destination) {
  const char *colon = strstr(url, "://");
  if (colon == NULL) return "is no URL: it has no ://";
  size_t scheme = colon - url;
  destination->https = scheme == 5 && strncasecmp(url, "https", 5) == 0;
  if (!destination->https && !(scheme == 4 && strncasecmp(url, "http", 4) == 0)) {
    return "has another scheme: http and https are possible";
  }
  for (const char *at = url; *at; at++) {
    if (*at < 0x21 || *at > 0x7e) return "has a space or another character that must be percent-encoded in a URL";
  }
  const char *authority = colon + 3;
  size_t length = strcspn(authority, "/?#");
  if (length == 0 || *authority == ':') return "names no host";
  if (memchr(authority, '@', length)) return "has a user name or password: grant a secret to the publisher instead";
  destination->authority = (text){(uint8_t *)authority, length};
  text rest = {(uint8_t *)authority + length, strcspn(authority + length, "#")};
  destination->path_with_query = (text){0};
  if (rest.len == 0 || *rest.ptr != '/') add(&destination->path_with_query, "/");
  add_text(&destination->path_with_query, rest);
  return NULL;
}

void add_destination(text *to, const struct destination *destination) {
  add(to, destination->https ? "https://" : "http://");
  add_text(to, destination->authority);
  text path = destination->path_with_query;
  const uint8_t *query = memchr(path.ptr, '?', path.len);
  add_text(to, (text){path.ptr, query ? (size_t)(query - path.ptr) : path.len});
}
