package main

import (
	"errors"
	"strings"
)

// Where to post to: the parts of an http or https URL.
type destination struct {
	https                    bool
	authority, pathWithQuery string
}

func parseDestination(url string) (destination, error) {
	scheme, rest, found := strings.Cut(url, "://")
	if !found {
		return destination{}, errors.New("is no URL: it has no ://")
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return destination{}, errors.New("has the scheme " + scheme + ": http and https are possible")
	}
	if strings.ContainsFunc(url, func(r rune) bool { return r < '!' || r > '~' }) {
		return destination{}, errors.New("has a space or another character that must be percent-encoded in a URL")
	}
	rest, _, _ = strings.Cut(rest, "#")
	authority, path := rest, ""
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		authority, path = rest[:at], rest[at:]
	}
	if authority == "" || authority[0] == ':' {
		return destination{}, errors.New("names no host")
	}
	if strings.Contains(authority, "@") {
		return destination{}, errors.New("has a user name or password: grant a secret to the publisher instead")
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return destination{scheme == "https", authority, path}, nil
}

// String leaves out the query, which often carries a token.
func (d destination) String() string {
	path, _, _ := strings.Cut(d.pathWithQuery, "?")
	if d.https {
		return "https://" + d.authority + path
	}
	return "http://" + d.authority + path
}
