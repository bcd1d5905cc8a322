package token

import (
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const (
	maxScopes   = 64
	maxScope    = 256 // bytes of one scope
	maxSegments = 16
)

// Scope is one permission that a session may use: verb:target. Scopes are an
// outer limit; policy decides inside it.
//
//	verb     lower-case letters, digits and '-', or '*' for every verb
//	target   segments separated by '/', for example a credential kind
//	         (vend:ssh-user-cert) or a path (read:resource/team-a/db/key)
//	segment  letters, digits, '.', '_', '-'; it may end in '*', which stands for
//	         any rest of this one segment; '.' and '..' are no segments
//	**       as the last segment stands for one or more segments of any kind
//
// A star never crosses a '/', but for the last '**'.
type Scope string

// ParseScope checks the grammar; what does not fit is Invalid.
func ParseScope(s string) (Scope, error) {
	verb, target, ok := strings.Cut(s, ":")
	if !ok || len(s) > maxScope || !verbForm(verb) {
		return "", fault.Invalidf("a scope must be verb:target with at most %d characters", maxScope)
	}
	segments := strings.Split(target, "/")
	if len(segments) > maxSegments {
		return "", fault.Invalidf("a scope must have at most %d segments", maxSegments)
	}
	for i, seg := range segments {
		if seg == "**" && i == len(segments)-1 {
			continue
		}
		if !segmentForm(seg) {
			return "", fault.Invalidf("a segment of a scope must be letters, digits, '.', '_' or '-', a star may end it, and ** may only be the last one")
		}
	}
	return Scope(s), nil
}

func verbForm(s string) bool {
	if s == "*" {
		return true
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return s != ""
}

func segmentForm(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	body := strings.TrimSuffix(s, "*")
	for i := range len(body) {
		if c := body[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// Covers reports whether everything that child permits, s permits too.
func (s Scope) Covers(child Scope) bool {
	pv, pt, ok1 := strings.Cut(string(s), ":")
	cv, ct, ok2 := strings.Cut(string(child), ":")
	if !ok1 || !ok2 || pv != "*" && pv != cv {
		return false
	}
	p, c := strings.Split(pt, "/"), strings.Split(ct, "/")
	for i, seg := range p {
		if i == len(c) {
			return false
		}
		if seg == "**" {
			return true // one or more segments of any kind, the child's ** included
		}
		if c[i] == "**" || !segmentCovers(seg, c[i]) {
			return false
		}
	}
	return len(p) == len(c)
}

// segmentCovers compares one segment; neither is **.
func segmentCovers(p, c string) bool {
	prefix, star := strings.CutSuffix(p, "*")
	if !star {
		return p == c // a child's star is wider than a plain segment
	}
	return strings.HasPrefix(strings.TrimSuffix(c, "*"), prefix)
}

// Scopes are the permissions of a session, sorted and without doubles.
type Scopes []Scope

// ParseScopes checks 1 to 64 scopes; an empty list is refused, because it is
// more often a mistake than a wish.
func ParseScopes(list []string) (Scopes, error) {
	if len(list) == 0 || len(list) > maxScopes {
		return nil, fault.Invalidf("a session must have 1 to %d scopes", maxScopes)
	}
	out := make(Scopes, 0, len(list))
	for _, s := range list {
		scope, err := ParseScope(s)
		if err != nil {
			return nil, err
		}
		out = append(out, scope)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Covers reports whether each scope of child is covered by one of ss. An empty
// child is covered by everything.
func (ss Scopes) Covers(child Scopes) bool {
	for _, c := range child {
		if !slices.ContainsFunc(ss, func(p Scope) bool { return p.Covers(c) }) {
			return false
		}
	}
	return true
}

// Allows reports whether a concrete act is permitted. Verb and target must be
// free of stars and well-formed, or nothing is.
func (ss Scopes) Allows(verb, target string) bool {
	act, err := ParseScope(verb + ":" + target)
	return err == nil && !strings.Contains(string(act), "*") && ss.Covers(Scopes{act})
}

// Strings are the scopes as text.
func (ss Scopes) Strings() []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = string(s)
	}
	return out
}
